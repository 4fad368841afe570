#include "vmm/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr TUN = "/dev/net/tun"_kj;
constexpr int HEADER_BYTES = 12;  // struct virtio_net_hdr_v1, §5.1.6
// <linux/if_tun.h> of Debian 12 is older.
constexpr uint32_t USO4 = 0x20, USO6 = 0x40;

ifreq requestFor(kj::StringPtr name) {
  ifreq request = {};
  KJ_REQUIRE(name.size() < IFNAMSIZ);
  memcpy(request.ifr_name, name.begin(), name.size());
  return request;
}

// Asks an interface's MTU; none when there is no such interface.
kj::Maybe<uint32_t> mtuOf(kj::StringPtr name) {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd any(fd);
  auto request = requestFor(name);
  if (ioctl(any, SIOCGIFMTU, &request) < 0) return nullptr;
  return static_cast<uint32_t>(request.ifr_mtu);
}

// IFF_… of an interface that is a tap or tun; none for another, or where /sys does not tell.
kj::Maybe<uint32_t> tunFlags(kj::StringPtr name) {
  auto path = kj::str("/sys/class/net/", name, "/tun_flags");
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  kj::AutoCloseFd file(fd);
  char text[32] = {};
  if (read(file, text, sizeof(text) - 1) <= 0) return nullptr;
  return static_cast<uint32_t>(strtoul(text, nullptr, 16));
}

kj::String howToMake(kj::StringPtr name, bool several) {
  return kj::str("sudo ip tuntap add dev ", shellWord(name), " mode tap user \"$USER\" vnet_hdr",
                 several ? " multi_queue" : "", " && sudo ip link set ", shellWord(name), " up");
}

[[noreturn]] void refuse(kj::StringPtr option, kj::StringPtr name, bool several,
                         kj::StringPtr why) {
  UserError(codes::TAP_UNUSABLE, kj::str(option, ": ", why))
      .advice("see", kj::str("ip -details link show ", shellWord(name)))
      .advice("mend", kj::str("sudo ip link del ", shellWord(name), "; ", howToMake(name, several)))
      .raise();
}

kj::AutoCloseFd openTun(kj::StringPtr option) {
  int fd = open(TUN.cStr(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  if (error == EACCES || error == EPERM) {
    UserError(codes::TAP_FORBIDDEN,
              kj::str(option, ": you may not open ", TUN, ": ", errnoText(error)))
        .advice("see", kj::str("ls -l ", TUN))
        .advice("mend", kj::str("sudo chmod 666 ", TUN, ", as most distributions have it"))
        .advice("try", "--net user, which needs no tap")
        .raise();
  }
  UserError(codes::TAP_UNUSABLE,
            kj::str(option, ": ", TUN, " cannot be opened: ", errnoText(error)))
      .advice("see", kj::str("ls -l ", TUN, "; lsmod | grep tun"))
      .advice("mend", "sudo modprobe tun")
      .raise();
}

[[noreturn]] void notAttached(kj::StringPtr option, kj::StringPtr name, uint16_t queues,
                              int error) {
  if (error == EPERM || error == EACCES) {
    UserError(codes::TAP_FORBIDDEN,
              kj::str(option, ": the tap ", quote(name), " is not yours: ", errnoText(error)))
        .advice("see", kj::str("cat /sys/class/net/", shellWord(name), "/owner; id -u"))
        .advice("mend",
                kj::str("sudo ip link del ", shellWord(name), "; ", howToMake(name, queues > 1)))
        .raise();
  }
  if (error == EBUSY) {
    UserError(codes::TAP_UNUSABLE,
              kj::str(option, ": the tap ", quote(name), " is in use by another program"))
        .advice("see", "troupe list")
        .raise();
  }
  refuse(option, name, queues > 1,
         kj::str("the tap ", quote(name), " cannot be used with ", queues,
                 queues == 1 ? " queue: " : " queues: ", errnoText(error)));
}

// Whether the tap was made for several queues: the kernel wants to be asked for just that. None
// where /sys is another network's, or is not there.
kj::Maybe<bool> wasMadeForSeveral(kj::StringPtr option, kj::StringPtr name, uint16_t queues) {
  KJ_IF_MAYBE (flags, tunFlags(name)) {
    if ((*flags & IFF_TAP) == 0) {
      refuse(option, name, queues > 1,
             kj::str(quote(name),
                     " is a tun interface, which moves no Ethernet frames; expected a "
                     "tap"));
    }
    bool several = (*flags & IFF_MULTI_QUEUE) != 0;
    if (!several && queues > 1) {
      refuse(option, name, true,
             kj::str("the tap ", quote(name), " has one queue, and queues=", queues,
                     " are asked for; it has to be made with multi_queue"));
    }
    return several;
  }
  if (access(kj::str("/sys/class/net/", name).cStr(), F_OK) == 0) {
    UserError(codes::TAP_UNUSABLE, kj::str(option, ": the interface ", quote(name), " is no tap"))
        .advice("see", kj::str("ip -details link show ", shellWord(name)))
        .advice("mend", howToMake("tap0", queues > 1))
        .raise();
  }
  return nullptr;
}

// One queue; 0, or the errno that says why not.
int attach(int fd, kj::StringPtr name, bool several) {
  auto request = requestFor(name);
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (several ? IFF_MULTI_QUEUE : 0));
  return ioctl(fd, TUNSETIFF, &request) == 0 ? 0 : errno;
}

// What it can do is found out by asking for it; nothing is on until the driver has agreed.
uint32_t offloadsOf(int fd) {
  constexpr uint32_t ALL = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  uint32_t can = 0;
  for (uint32_t set : {ALL | USO4 | USO6, ALL, uint32_t(TUN_F_CSUM)}) {
    if (ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(set)) < 0) continue;
    can = set;
    break;
  }
  KJ_SYSCALL(ioctl(fd, TUNSETOFFLOAD, 0ul));
  return can;
}

void setHeader(kj::StringPtr option, int fd) {
  int bytes = HEADER_BYTES;
  if (ioctl(fd, TUNSETVNETHDRSZ, &bytes) == 0) return;
  int error = errno;
  UserError(codes::TAP_UNUSABLE, kj::str(option, ": the tap takes no header of ", HEADER_BYTES,
                                         " bytes: ", errnoText(error)))
      .raise();
}

}  // namespace

Tap openTap(kj::StringPtr option, kj::StringPtr name, uint16_t queues) {
  auto found = mtuOf(name);
  if (found == nullptr) {
    UserError(codes::NO_TAP, kj::str(option, ": there is no interface ", quote(name)))
        .advice("see", "ip link")
        .advice("mend", howToMake(name, queues > 1))
        .raise();
  }
  auto known = wasMadeForSeveral(option, name, queues);
  bool several = known.orDefault(queues > 1);
  kj::Vector<kj::AutoCloseFd> fds;
  for (uint16_t i = 0; i < queues; i++) {
    auto fd = openTun(option);
    int error = attach(fd, name, several);
    if (error == EINVAL && known == nullptr && queues == 1) error = attach(fd, name, !several);
    if (error != 0) notAttached(option, name, queues, error);
    setHeader(option, fd);
    fds.add(kj::mv(fd));
  }
  uint32_t offloads = offloadsOf(fds[0]);
  return {fds.releaseAsArray(), KJ_ASSERT_NONNULL(found), offloads};
}

Tap openFreeTap(kj::StringPtr option, kj::StringPtr prefix) {
  constexpr uint32_t MOST = 4096;  // ports of the largest bridges
  uint32_t count = 0;
  for (; count < MOST; count++) {
    auto name = kj::str(prefix, count);
    auto found = mtuOf(name);
    if (found == nullptr) break;
    // Of one for several queues nobody could tell whether another guest has some of them.
    auto isForSeveral = [&]() {
      refuse(option, name, false,
             kj::str("the tap ", quote(name), " is for several queues; a guest's has one"));
    };
    if (wasMadeForSeveral(option, name, 1).orDefault(false)) isForSeveral();
    auto fd = openTun(option);
    int error = attach(fd, name, false);
    if (error == EINVAL) isForSeveral();
    if (error == EBUSY) continue;
    if (error != 0) notAttached(option, name, 1, error);
    setHeader(option, fd);
    uint32_t offloads = offloadsOf(fd);
    auto fds = kj::heapArrayBuilder<kj::AutoCloseFd>(1);
    fds.add(kj::mv(fd));
    return {fds.finish(), KJ_ASSERT_NONNULL(found), offloads};
  }
  UserError(codes::NO_TAP,
            count == 0 ? kj::str(option, ": there is no interface ", quote(kj::str(prefix, 0)))
                       : kj::str(option, ": all ", count, " taps from ", quote(kj::str(prefix, 0)),
                                 " on are in use"))
      .advice("see", "ip link")
      .advice("mend", howToMake(kj::str(prefix, count), false))
      .raise();
}

Tap makeBridgedTap(kj::StringPtr option, kj::StringPtr bridge) {
  if (mtuOf(bridge) == nullptr) {
    UserError(codes::NO_TAP, kj::str(option, ": there is no bridge ", quote(bridge)))
        .advice("see", "ip link show type bridge")
        .advice("mend", kj::str("sudo ip link add ", shellWord(bridge),
                                " type bridge && sudo ip link "
                                "set ",
                                escape(bridge), " up"))
        .raise();
  }
  auto failed = [&](kj::StringPtr doing, int error) {
    bool forbidden = error == EPERM || error == EACCES;
    UserError(forbidden ? codes::TAP_FORBIDDEN : codes::TAP_UNUSABLE,
              kj::str(option, ": a tap for it cannot be ", doing, ": ", errnoText(error)))
        .advice("try", forbidden ? "taps that root makes once and puts into the bridge, with "
                                   "tap-prefix=P; or user"
                                 : "tap-prefix=P, or user")
        .raise();
  };
  auto fd = openTun(option);
  ifreq request = requestFor("trp%d");  // the kernel puts a number there
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  if (ioctl(fd, TUNSETIFF, &request) < 0) failed("made", errno);
  auto name = kj::heapString(request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ));
  setHeader(option, fd);

  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd any(raw);
  ifreq port = requestFor(name);
  if (ioctl(any, SIOCGIFINDEX, &port) < 0) failed("found", errno);
  int index = port.ifr_ifindex;
  ifreq ofBridge = requestFor(bridge);
  ofBridge.ifr_ifindex = index;
  if (ioctl(any, SIOCBRADDIF, &ofBridge) < 0) failed("put into it", errno);
  ifreq flags = requestFor(name);
  if (ioctl(any, SIOCGIFFLAGS, &flags) < 0) failed("looked at", errno);
  flags.ifr_flags = static_cast<short>(flags.ifr_flags | IFF_UP);
  if (ioctl(any, SIOCSIFFLAGS, &flags) < 0) failed("switched on", errno);

  uint32_t offloads = offloadsOf(fd);
  auto fds = kj::heapArrayBuilder<kj::AutoCloseFd>(1);
  fds.add(kj::mv(fd));
  return {fds.finish(), mtuOf(name).orDefault(0), offloads};
}

kj::Maybe<kj::String> bridgeOf(const Tap& tap) {
  ifreq request = {};
  KJ_SYSCALL(ioctl(tap.queues[0], TUNGETIFF, &request));
  char name[IFNAMSIZ + 1] = {};
  memcpy(name, request.ifr_name, IFNAMSIZ);
  auto link = kj::str("/sys/class/net/", name, "/master");
  char target[PATH_MAX];
  ssize_t length = readlink(link.cStr(), target, sizeof(target));
  if (length <= 0) return nullptr;
  auto path = kj::heapString(target, length);
  KJ_IF_MAYBE (slash, path.findLast('/')) return kj::heapString(path.slice(*slash + 1));
  return kj::mv(path);
}

kj::Maybe<Tap> adoptTap(kj::StringPtr option, kj::ArrayPtr<const int> numbers) {
  kj::Vector<kj::AutoCloseFd> fds;
  kj::String name;
  for (int number : numbers) {
    ifreq request = {};
    bool isTap = ioctl(number, TUNGETIFF, &request) == 0;
    if (!isTap && fds.size() == 0) return nullptr;
    auto wrong = [&](kj::StringPtr why) {
      UserError(codes::NET_FD, kj::str(option, ": fd ", number, " ", why)).raise();
    };
    if (!isTap) wrong("is no tap, and the first is one; the queues of a device are of one kind");
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    uint32_t flags = static_cast<uint16_t>(request.ifr_flags);
    if ((flags & IFF_TAP) == 0) wrong("is a tun, which moves no Ethernet frames; expected a tap");
    if ((flags & IFF_NO_PI) == 0)
      wrong("was opened without IFF_NO_PI; frames are to begin with their header alone");
    if ((flags & IFF_VNET_HDR) == 0) {
      wrong("is a tap without virtio-net headers; it has to be opened with IFF_VNET_HDR");
    }
    if (fds.size() == 0) name = kj::heapString(request.ifr_name);
    if (name != request.ifr_name) {
      wrong(kj::str("is of the tap ", quote(request.ifr_name), " and the first of ", quote(name),
                    "; the queues of a device are of one tap"));
    }
    int copy;
    KJ_SYSCALL(copy = fcntl(number, F_DUPFD_CLOEXEC, 3));
    fds.add(kj::AutoCloseFd(copy));
    setHeader(option, copy);
  }
  uint32_t offloads = offloadsOf(fds[0]);
  // An interface of another network namespace is not seen by its name.
  return Tap{fds.releaseAsArray(), mtuOf(name).orDefault(0), offloads};
}

}  // namespace troupe
