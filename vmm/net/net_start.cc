#include "vmm/net/net_start.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <linux/if_tun.h>
#include <sys/socket.h>

namespace troupe {

namespace {

constexpr uint32_t USO4 = 0x20, USO6 = 0x40;  // TUN_F_…; Debian 12's <linux/if_tun.h> is older

NetConfig::Backend backendOf(NetFiles::Kind kind) {
  switch (kind) {
    case NetFiles::Kind::TAP:
      return NetConfig::Backend::TAP;
    case NetFiles::Kind::PACKETS:
      return NetConfig::Backend::PACKETS;
    default:
      return NetConfig::Backend::STREAM;
  }
}

void write(const RatePlan& plan, NetConfig::RateLimit::Builder rate) {
  rate.setBytesPerSecond(plan.bytesPerSecond);
  rate.setBurstBytes(plan.burstBytes);
  rate.setFramesPerSecond(plan.itemsPerSecond);
  rate.setBurstFrames(plan.burstItems);
}

}  // namespace

void describeNet(const NetPlan& plan, const NetFiles& files, NetConfig::Builder config) {
  config.setMac(kj::arrayPtr(plan.mac, MAC_BYTES));
  config.setMtu(files.mtu);
  config.setQueuePairs(plan.queues);
  config.setBackend(backendOf(files.kind));
  auto offloads = config.initOffloads();
  offloads.setChecksum((files.offloads & TUN_F_CSUM) != 0);
  offloads.setTso4((files.offloads & TUN_F_TSO4) != 0);
  offloads.setTso6((files.offloads & TUN_F_TSO6) != 0);
  offloads.setEcn((files.offloads & TUN_F_TSO_ECN) != 0);
  offloads.setUso((files.offloads & (USO4 | USO6)) == (USO4 | USO6));
  write(plan.rateIn, config.initReceiveRate());
  write(plan.rateOut, config.initTransmitRate());
  config.setSpoofFilter(plan.nospoof);
  config.setCapture(files.pcap != nullptr);
}

void handNet(const NetFiles& files, int socket, kj::Vector<sandbox::HandedFd>& fds) {
  kj::StringPtr name = files.kind == NetFiles::Kind::TAP ? "tap"_kj : "socket"_kj;
  for (kj::uint i = 0; i < files.fds.size(); i++)
    fds.add(sandbox::HandedFd{name, i, files.fds[i]});
  if (files.kind == NetFiles::Kind::USER) fds.add(sandbox::HandedFd{name, 0, socket});
  KJ_IF_MAYBE (pcap, files.pcap) {
    fds.add(sandbox::HandedFd{"pcap", 0, *pcap});
  }
}

SocketPair makeFrameSockets() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

kj::Array<kj::String> passtArguments(const NetPlan& plan) {
  kj::Vector<kj::String> words;
  for (auto word : {"--foreground", "--quiet", "--stderr", "--fd", "3"})
    words.add(kj::str(word));
  if (plan.mtu != 0) {
    words.add(kj::str("--mtu"));
    words.add(kj::str(plan.mtu));
  }
  for (auto& forward : plan.forwards) {
    words.add(kj::str(forward.udp ? "--udp-ports" : "--tcp-ports"));
    words.add(kj::str(forward.address, forward.address.size() == 0 ? "" : "/", forward.hostPort,
                      ":", forward.guestPort));
  }
  return words.releaseAsArray();
}

kj::AutoCloseFd openNull() {
  int fd;
  KJ_SYSCALL(fd = open("/dev/null", O_RDWR | O_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

}  // namespace troupe
