#include "devices/net/tap_queues.h"

#include <kj/debug.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "devices/net/net_wire.h"

namespace troupe::net {
namespace {

// Its IFF_… flags.
int tapFlagsOf(int fd) {
  ifreq request = {};
  KJ_SYSCALL(ioctl(fd, TUNGETIFF, &request), "TRP-net-105: the network's backend is no tap");
  int flags = request.ifr_flags;
  KJ_REQUIRE((flags & IFF_TAP) && (flags & IFF_NO_PI) && (flags & IFF_VNET_HDR),
             "TRP-net-105: the tap was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR", flags);
  int headerBytes = 0;
  KJ_SYSCALL(ioctl(fd, TUNGETVNETHDRSZ, &headerBytes),
             "TRP-net-105: the size of the tap's headers is not known");
  KJ_REQUIRE(headerBytes == sizeof(virtio::NetHeader),
             "TRP-net-105: the headers of the tap's frames do not have 12 bytes", headerBytes);
  return flags;
}

}  // namespace

TapQueues::TapQueues(kj::ArrayPtr<const int> fds)
    : fds(kj::heapArray(fds)), states(kj::heapArray<State>(fds.size())) {
  for (size_t i = 0; i < fds.size(); i++)
    states[i] = tapFlagsOf(fds[i]) & IFF_DETACH_QUEUE ? State::DETACHED : State::ATTACHED;
}

// The call that would tell is of no other use, and no filter lets it through by now: the kernel
// refuses what is so already.
void TapQueues::askAgain() {
  for (auto& state : states)
    state = State::UNKNOWN;
}

bool TapQueues::setOffloads(const Offloads& toGuest) {
  return ioctl(fds[0], TUNSETOFFLOAD, (unsigned long)(tapFlags(toGuest))) == 0;
}

bool TapQueues::attach(uint16_t pair) {
  State& state = states[pair];
  if (state == State::ATTACHED) return true;
  bool isSo = setQueue(pair, IFF_ATTACH_QUEUE) || (state == State::UNKNOWN && errno == EINVAL);
  if (isSo) state = State::ATTACHED;
  return isSo;
}

// The first stays: a tap without any queue loses its settings.
void TapQueues::detach(uint16_t pair) {
  State& state = states[pair];
  if (pair == 0 || state == State::DETACHED) return;
  bool isSo = setQueue(pair, IFF_DETACH_QUEUE) || (state == State::UNKNOWN && errno == EINVAL);
  if (isSo) state = State::DETACHED;
}

bool TapQueues::setQueue(uint16_t pair, short flag) {
  ifreq request = {};
  request.ifr_flags = flag;
  return ioctl(fds[pair], TUNSETQUEUE, &request) == 0;
}

}  // namespace troupe::net
