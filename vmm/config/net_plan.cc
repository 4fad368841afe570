#include "vmm/config/net_plan.h"

#include <arpa/inet.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <net/if.h>
#include <string.h>
#include <sys/random.h>

#include "devices/net/net.capnp.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr FRAMES = "fps"_kj;
constexpr uint32_t LEAST_MTU = 68;
constexpr uint32_t MOST_MTU = 65535;

// "tap=t0", as errors begin.
kj::String nameOf(NetOptions::Reader net, uint32_t index) {
  if (net.getTap().size() > 0) return kj::str("--net tap=", escape(net.getTap()));
  if (net.getFd().size() > 0) return kj::str("--net fd=", escape(net.getFd()));
  if (net.getUser()) return kj::str("--net user");
  return kj::str("network device ", index);
}

[[noreturn]] void refuse(kj::StringPtr name, kj::StringPtr why) {
  UserError(codes::NET_OPTION, kj::str(name, ": ", why)).raise();
}

void checkTap(kj::StringPtr name, kj::StringPtr tap) {
  bool sound = tap.size() < IFNAMSIZ && tap != "." && tap != "..";
  for (char c : tap)
    sound = sound && c > ' ' && c < 0x7f && c != '/' && c != ':' && c != '%';
  if (sound) return;
  refuse(name, kj::str(quote(tap), " is not the name of an interface; one has at most ",
                       IFNAMSIZ - 1, " printable characters, and no space, '/', ':' or '%'"));
}

kj::Array<int> planFds(kj::StringPtr name, kj::StringPtr text) {
  kj::Vector<int> fds;
  kj::StringPtr rest = text;
  for (bool more = true; more;) {
    auto word = kj::heapString(rest);
    more = false;
    KJ_IF_MAYBE (colon, rest.findFirst(':')) {
      word = kj::heapString(rest.begin(), *colon);
      rest = rest.slice(*colon + 1);
      more = true;
    }
    auto number = parseNumber(word, INT32_MAX).orDefault(0);
    if (number < 3) {
      refuse(name, kj::str(quote(word),
                           " is not the number of an fd that troupe inherited; "
                           "expected 3 or more, with ':' between several"));
    }
    for (int earlier : fds) {
      if (earlier == static_cast<int>(number))
        refuse(name, kj::str("fd ", number, " is given twice"));
    }
    fds.add(static_cast<int>(number));
  }
  return fds.releaseAsArray();
}

NetPlan::Backend planBackend(NetOptions::Reader net, kj::StringPtr name) {
  int said = (net.getTap().size() > 0) + (net.getFd().size() > 0) + net.getUser();
  if (said != 1) {
    refuse(name, said == 0 ? "it has no backend; one of tap=NAME, fd=N and user has to be given"_kj
                           : "tap, fd and user exclude each other; one of them has to be given"_kj);
  }
  if (net.getTap().size() > 0) checkTap(name, net.getTap());
  return net.getTap().size() > 0  ? NetPlan::Backend::TAP
         : net.getFd().size() > 0 ? NetPlan::Backend::FD
                                  : NetPlan::Backend::USER;
}

kj::Maybe<int> hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return nullptr;
}

bool parseMac(kj::StringPtr text, kj::byte (&mac)[MAC_BYTES]) {
  if (text.size() != 3 * MAC_BYTES - 1) return false;
  for (size_t i = 0; i < MAC_BYTES; i++) {
    int high = hexDigit(text[3 * i]).orDefault(-1), low = hexDigit(text[3 * i + 1]).orDefault(-1);
    if (high < 0 || low < 0 || (i + 1 < MAC_BYTES && text[3 * i + 2] != ':')) return false;
    mac[i] = static_cast<kj::byte>(high << 4 | low);
  }
  return true;
}

// FNV-1a: the same address for the same name and place, whatever else changes.
uint64_t hashOf(kj::StringPtr vmName, uint32_t index) {
  uint64_t hash = 0xcbf29ce484222325;
  auto take = [&](uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (char c : vmName)
    take(static_cast<uint8_t>(c));
  take(0);
  take(static_cast<uint8_t>(index));
  return hash ^ hash >> 32;
}

void makeMac(kj::StringPtr vmName, uint32_t index, kj::byte (&mac)[MAC_BYTES]) {
  uint64_t bits = hashOf(vmName, index);
  if (vmName.size() == 0) {
    // A VM that gets a name of its own is another one each time.
    KJ_SYSCALL(getrandom(&bits, sizeof(bits), 0));
  }
  memcpy(mac, &bits, MAC_BYTES);
  mac[0] = static_cast<kj::byte>((mac[0] & ~1) | 2);  // one host's, locally administered
}

void planMac(NetOptions::Reader net, kj::StringPtr name, kj::StringPtr vmName, uint32_t index,
             kj::byte (&mac)[MAC_BYTES]) {
  if (net.getMac().size() == 0) return makeMac(vmName, index, mac);
  auto wrong = [&](kj::StringPtr why) {
    UserError(codes::NET_MAC, kj::str(name, ": mac=", escape(net.getMac()), " ", why)).raise();
  };
  if (!parseMac(net.getMac(), mac))
    wrong("is not a MAC address; expected six bytes such as 52:54:00:12:34:56");
  if ((mac[0] & 1) != 0) wrong("is a group's address; the first byte of a device's own is even");
  constexpr kj::byte NONE[MAC_BYTES] = {};
  if (memcmp(mac, NONE, MAC_BYTES) == 0) wrong("is no address");
}

uint16_t planMtu(NetOptions::Reader net, kj::StringPtr name) {
  uint32_t mtu = net.getMtu();
  if (mtu == 0 || (mtu >= LEAST_MTU && mtu <= MOST_MTU)) return static_cast<uint16_t>(mtu);
  refuse(name, kj::str("mtu=", mtu, " is out of range; an MTU is ", LEAST_MTU, " to ", MOST_MTU));
}

RatePlan planRate(kj::StringPtr name, kj::StringPtr part, kj::StringPtr text) {
  RatePlan plan;
  if (text.size() == 0) return plan;
  KJ_IF_MAYBE (why, parseRate(text, FRAMES, plan)) {
    refuse(name,
           kj::str(part, "=", escape(text), " is not possible: ", *why, "; ", rateRule(FRAMES)));
  }
  return plan;
}

uint16_t portOf(kj::StringPtr name, kj::StringPtr forward, kj::StringPtr text) {
  auto port = parseNumber(text, UINT16_MAX).orDefault(0);
  if (port != 0) return static_cast<uint16_t>(port);
  refuse(name, kj::str("hostfwd=", escape(forward), " is not possible: ", quote(text),
                       " is not a port; ports are 1 to 65535"));
}

// "tcp:[ADDRESS:]HOST_PORT:GUEST_PORT". No IPv6 address: it has colons of its own.
ForwardPlan planForward(kj::StringPtr name, kj::StringPtr text) {
  auto wrong = [&](kj::StringPtr why) {
    refuse(name, kj::str("hostfwd=", escape(text), " is not possible: ", why,
                         "; expected tcp:8080:80, or udp:127.0.0.1:5353:53 for one address of the "
                         "host's"));
  };
  kj::Vector<kj::String> words;
  kj::StringPtr rest = text;
  for (bool more = true; more;) {
    more = false;
    KJ_IF_MAYBE (colon, rest.findFirst(':')) {
      words.add(kj::heapString(rest.begin(), *colon));
      rest = rest.slice(*colon + 1);
      more = true;
    } else {
      words.add(kj::heapString(rest));
    }
  }
  if (words.size() != 3 && words.size() != 4) wrong("it has not two ports");
  if (words[0] != "tcp" && words[0] != "udp")
    wrong(kj::str(quote(words[0]), " is neither tcp nor udp"));
  kj::String address;
  if (words.size() == 4) {
    in_addr parsed;
    if (inet_pton(AF_INET, words[1].cStr(), &parsed) != 1)
      wrong(kj::str(quote(words[1]), " is not an IPv4 address"));
    address = kj::mv(words[1]);
  }
  auto& host = words[words.size() - 2];
  auto& guest = words.back();
  return {words[0] == "udp", kj::mv(address), portOf(name, text, host), portOf(name, text, guest)};
}

// Of two forwards one of which would take the other's connections.
void checkForwards(kj::StringPtr name, const ForwardPlan& one, const ForwardPlan& other) {
  bool share =
      one.udp == other.udp && one.hostPort == other.hostPort &&
      (one.address == other.address || one.address.size() == 0 || other.address.size() == 0);
  if (share) refuse(name, kj::str("port ", one.hostPort, " of the host is forwarded twice"));
}

kj::Array<ForwardPlan> planForwards(NetOptions::Reader net, kj::StringPtr name) {
  auto texts = net.getHostfwd();
  if (texts.size() > 0 && !net.getUser())
    refuse(name, "hostfwd= goes with user; a tap is reached under the guest's own address");
  if (texts.size() > MOST_FORWARDS)
    refuse(name, kj::str(texts.size(), " ports are forwarded; at most ", MOST_FORWARDS));
  kj::Vector<ForwardPlan> forwards;
  for (auto text : texts) {
    auto forward = planForward(name, text);
    for (auto& earlier : forwards)
      checkForwards(name, forward, earlier);
    forwards.add(kj::mv(forward));
  }
  return forwards.releaseAsArray();
}

uint16_t planQueues(NetOptions::Reader net, kj::StringPtr name, size_t fds) {
  uint32_t most = net.getUser() ? 1 : NetConfig::MOST_QUEUE_PAIRS;
  uint32_t queues = net.getQueues();
  if (queues == 0) queues = fds > 0 ? static_cast<uint32_t>(fds) : 1;
  if (queues > most) {
    refuse(name, net.getUser()
                     ? kj::str("queues=", queues, " is not possible; with user there is one pair")
                     : kj::str(queues, " pairs of queues are too many; there are 1 to ", most));
  }
  if (fds > 0 && queues != fds) {
    refuse(name,
           kj::str("queues=", queues, " and ", fds, " fd(s) contradict each other; each pair ",
                   "of queues has an fd of its own: fd=5:6"));
  }
  return static_cast<uint16_t>(queues);
}

NetPlan planNet(NetOptions::Reader net, kj::StringPtr vmName, uint32_t index) {
  auto name = nameOf(net, index);
  NetPlan plan;
  plan.backend = planBackend(net, name);
  plan.tap = kj::heapString(net.getTap());
  if (plan.backend == NetPlan::Backend::FD) plan.fds = planFds(name, net.getFd());
  planMac(net, name, vmName, index, plan.mac);
  plan.mtu = planMtu(net, name);
  plan.queues = planQueues(net, name, plan.fds.size());
  plan.forwards = planForwards(net, name);
  if (net.getPcap().size() > 0) plan.pcap = kj::heapString(net.getPcap());
  auto both = net.getRate();
  plan.rateIn = net.getRateIn().size() > 0 ? planRate(name, "rate-in", net.getRateIn())
                                           : planRate(name, "rate", both);
  plan.rateOut = net.getRateOut().size() > 0 ? planRate(name, "rate-out", net.getRateOut())
                                             : planRate(name, "rate", both);
  plan.nospoof = net.getNospoof();
  return plan;
}

// Two devices of one VM that would take each other's place.
void checkPair(const NetPlan& net, const NetPlan& earlier) {
  if (memcmp(net.mac, earlier.mac, MAC_BYTES) == 0) {
    UserError(codes::NET_MAC,
              kj::str(netName(earlier), " and ", netName(net), " have the same MAC address ",
                      macText(net.mac), "; each network device has one of its own"))
        .raise();
  }
  if (net.backend == NetPlan::Backend::TAP && earlier.backend == net.backend &&
      net.tap == earlier.tap) {
    refuse(netName(net),
           "the tap is given twice; several queues of one tap are said with queues=N");
  }
  for (int fd : net.fds) {
    for (int other : earlier.fds) {
      if (fd == other) refuse(netName(net), kj::str("fd ", fd, " is given twice"));
    }
  }
  for (auto& forward : net.forwards) {
    for (auto& other : earlier.forwards)
      checkForwards(netName(net), forward, other);
  }
}

}  // namespace

kj::Array<NetPlan> planNets(capnp::List<NetOptions>::Reader configs, kj::StringPtr vmName) {
  if (configs.size() > MOST_NETS) {
    UserError(codes::TOO_MANY_NETS, kj::str(configs.size(), " network devices are asked for; a VM ",
                                            "has at most ", MOST_NETS))
        .raise();
  }
  kj::Vector<NetPlan> nets;
  for (auto config : configs) {
    auto net = planNet(config, vmName, static_cast<uint32_t>(nets.size()));
    for (auto& earlier : nets)
      checkPair(net, earlier);
    nets.add(kj::mv(net));
  }
  return nets.releaseAsArray();
}

void spellOutNets(capnp::List<NetOptions>::Builder nets, kj::StringPtr vmName) {
  uint32_t index = 0;
  for (auto net : nets) {
    auto plan = planNet(net.asReader(), vmName, index++);
    // A random address would not be the one of the next run.
    if (vmName.size() > 0) net.setMac(macText(plan.mac));
    net.setQueues(plan.queues);
  }
}

kj::String macText(const kj::byte (&mac)[MAC_BYTES]) {
  auto two = [](kj::byte byte) {
    auto text = kj::str(kj::hex(byte));
    return text.size() == 1 ? kj::str("0", text) : kj::mv(text);
  };
  return kj::str(two(mac[0]), ":", two(mac[1]), ":", two(mac[2]), ":", two(mac[3]), ":",
                 two(mac[4]), ":", two(mac[5]));
}

kj::String netName(const NetPlan& net) {
  switch (net.backend) {
    case NetPlan::Backend::TAP:
      return kj::str("--net tap=", escape(net.tap));
    case NetPlan::Backend::FD:
      return kj::str("--net fd=", kj::strArray(net.fds, ":"));
    default:
      return kj::str("--net user");
  }
}

}  // namespace troupe
