#include "vmm/realm/realm_net.h"

#include <capnp/message.h>
#include <net/if.h>

#include "vmm/config/net_plan.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr size_t TAP_DIGITS = 4;

bool isInterfaceName(kj::StringPtr name, size_t longest) {
  bool sound = name.size() > 0 && name.size() <= longest && name != "." && name != "..";
  for (char c : name)
    sound = sound && c > ' ' && c < 0x7f && c != '/' && c != ':' && c != '%';
  return sound;
}

kj::AutoCloseFd soleQueue(Tap tap) {
  return kj::mv(tap.queues[0]);
}

}  // namespace

NetChoice parseNetChoice(kj::StringPtr text) {
  constexpr kj::StringPtr BRIDGE = "bridge="_kj;
  constexpr kj::StringPtr PREFIX = "tap-prefix="_kj;
  NetChoice choice;
  bool sound = true;
  if (text == "none") {
    choice.kind = NetChoice::Kind::NONE;
  } else if (text == "user") {
    choice.kind = NetChoice::Kind::USER;
  } else if (text.startsWith(BRIDGE)) {
    choice.kind = NetChoice::Kind::BRIDGE;
    choice.name = kj::heapString(text.slice(BRIDGE.size()));
    sound = isInterfaceName(choice.name, IFNAMSIZ - 1);
  } else if (text.startsWith(PREFIX)) {
    choice.kind = NetChoice::Kind::TAP;
    choice.name = kj::heapString(text.slice(PREFIX.size()));
    sound = isInterfaceName(choice.name, IFNAMSIZ - 1 - TAP_DIGITS);
  } else {
    sound = false;
  }
  if (sound) return choice;
  constexpr kj::StringPtr CHOICES[] = {"user"_kj, "bridge=NAME"_kj, "tap-prefix=P"_kj, "none"_kj};
  UserError(codes::REALM_NET,
            kj::str("the network ", quote(text),
                    " of a realm is not possible; expected user, bridge=NAME, "
                    "tap-prefix=P (of at most ",
                    IFNAMSIZ - 1 - TAP_DIGITS, " characters) or none", didYouMean(text, CHOICES)))
      .raise();
}

RealmNets::RealmNets(GuestPlan& plan, const NetChoice& choice) {
  auto typed = plan.typed->getRoot<VmConfig>().asReader().getNets();
  if (choice.kind == NetChoice::Kind::NONE) {
    size_t count = plan.nets.size() + typed.size();
    if (count > 0) {
      plan.notes.add(kj::str(count, " network device(s) are left out: the realm's net is none"));
    }
    return;
  }
  // In the order of the guest, as if each were the user's: what cannot be is refused before
  // anything is opened, and an address that stands for somebody is written in one way.
  size_t own = plan.nets.size() - plan.hasDefaultNet;
  capnp::MallocMessageBuilder message;
  auto nets = message.initRoot<VmConfig>().initNets(kj::uint(plan.nets.size()) + typed.size());
  kj::uint next = 0;
  for (auto& mac : plan.nets.asPtr().slice(0, own))
    nets[next++].setMac(macText(mac));
  for (auto net : typed)
    nets.setWithCaveats(next++, net);
  if (plan.hasDefaultNet) nets[next].setMac(macText(plan.nets.back()));
  for (auto net : nets)
    net.setUser(true);
  auto planned = planNets(nets, "");
  for (kj::uint i = 0; i < nets.size(); i++) {
    bool saysMac = nets[i].getMac().size() > 0;
    auto link = linkFor(saysMac ? troupe::macText(planned[i].mac) : kj::String(), choice);
    if (i >= own && i - own < typed.size()) link.typed = typed[i - own];
    links.add(kj::mv(link));
  }
}

RealmNets::Link RealmNets::linkFor(kj::StringPtr mac, const NetChoice& choice) {
  Link link{nullptr, kj::heapString(mac), nullptr};
  switch (choice.kind) {
    case NetChoice::Kind::BRIDGE:
      // An address made of the VM's name is nobody else's, like the name.
      if (mac.size() > 0) leases.add(kj::heap<MacLease>(choice.name, mac));
      link.tap =
          soleQueue(makeBridgedTap(kj::str("--realm-net bridge=", choice.name), choice.name));
      break;
    case NetChoice::Kind::TAP: {
      auto tap = openFreeTap(kj::str("--realm-net tap-prefix=", choice.name), choice.name);
      // Whoever made the taps may have joined them.
      KJ_IF_MAYBE (bridge, bridgeOf(tap)) {
        if (mac.size() > 0) leases.add(kj::heap<MacLease>(*bridge, mac));
      }
      link.tap = soleQueue(kj::mv(tap));
      break;
    }
    case NetChoice::Kind::USER:
    case NetChoice::Kind::NONE:
      break;
  }
  return link;
}

void RealmNets::describe(VmConfig::Builder config) const {
  auto nets = config.initNets(kj::uint(links.size()));
  for (auto i : kj::indices(links)) {
    auto& link = links[i];
    KJ_IF_MAYBE (typed, link.typed) nets.setWithCaveats(i, *typed);
    auto net = nets[i];
    net.setMac(link.mac);
    KJ_IF_MAYBE (tap, link.tap) {
      net.setFd(kj::str(tap->get()));
    } else {
      net.setUser(true);
    }
  }
}

}  // namespace troupe::realm
