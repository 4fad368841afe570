#include "vmm/net/net_files.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/files/open_file.h"
#include "vmm/net/forwarded_ports.h"
#include "vmm/net/tap.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr size_t MOST_PACKET_SOCKETS = 4;  // of one device

[[noreturn]] void refuseFd(kj::StringPtr option, int fd, kj::StringPtr why) {
  UserError(codes::NET_FD, kj::str(option, ": fd ", fd, " ", why))
      .advice("see", kj::str("ls -l /proc/$$/fd/", fd))
      .raise();
}

int socketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

NetFiles::Kind socketKind(kj::StringPtr option, int fd) {
  constexpr kj::StringPtr EXPECTED = "expected a tap or a connected unix socket"_kj;
  if (socketOption(fd, SO_DOMAIN) != AF_UNIX)
    refuseFd(option, fd, kj::str("is no tap and no unix socket; ", EXPECTED));
  sockaddr_storage peer;
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) < 0)
    refuseFd(option, fd, kj::str("is a unix socket that is not connected; ", EXPECTED));
  return socketOption(fd, SO_TYPE) == SOCK_STREAM ? NetFiles::Kind::STREAM
                                                  : NetFiles::Kind::PACKETS;
}

NetFiles adoptSockets(kj::StringPtr option, const NetPlan& net) {
  auto kind = socketKind(option, net.fds[0]);
  size_t most = kind == NetFiles::Kind::STREAM ? 1 : MOST_PACKET_SOCKETS;
  if (net.fds.size() > most) {
    refuseFd(option, net.fds[0],
             kj::str("is a socket, of which a device has at most ", most, " of this type; ",
                     net.fds.size(), " are given"));
  }
  kj::Vector<kj::AutoCloseFd> fds;
  for (int fd : net.fds) {
    if (socketKind(option, fd) != kind)
      refuseFd(option, fd, "is a socket of another type than the first");
    fds.add(copyOf(fd));
  }
  return {kind, fds.releaseAsArray(), nullptr, net.mtu, 0};
}

void checkOpen(kj::StringPtr option, const NetPlan& net) {
  for (int fd : net.fds) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    refuseFd(option, fd,
             "is not open; whoever starts troupe has to leave it open for it (fd=N names it)");
  }
}

NetFiles ofTap(kj::StringPtr option, const NetPlan& net, Tap tap) {
  if (net.mtu > tap.mtu && tap.mtu != 0) {
    UserError(codes::TAP_UNUSABLE,
              kj::str(option, ": mtu=", net.mtu, " is more than the tap's MTU of ", tap.mtu,
                      ", which would drop the guest's longer frames"))
        .advice("mend",
                kj::str("sudo ip link set ", net.tap.size() > 0 ? escape(net.tap) : kj::str("TAP"),
                        " mtu ", net.mtu))
        .raise();
  }
  auto mtu = net.mtu != 0 ? net.mtu : static_cast<uint16_t>(kj::min(tap.mtu, uint32_t(65535)));
  return {NetFiles::Kind::TAP, kj::mv(tap.queues), nullptr, mtu, tap.offloads};
}

NetFiles openBackend(const NetPlan& net) {
  auto option = netName(net);
  switch (net.backend) {
    case NetPlan::Backend::TAP:
      return ofTap(option, net, openTap(option, net.tap, net.queues));
    case NetPlan::Backend::FD: {
      checkOpen(option, net);
      KJ_IF_MAYBE (tap, adoptTap(option, net.fds)) {
        return ofTap(option, net, kj::mv(*tap));
      }
      return adoptSockets(option, net);
    }
    default:
      checkForwardedPorts(option, net.forwards);
      return {NetFiles::Kind::USER, nullptr, nullptr, net.mtu, 0, openPasst(option)};
  }
}

}  // namespace

kj::AutoCloseFd openPasst(kj::StringPtr option) {
  constexpr kj::StringPtr BUILDS[] = {"/usr/bin/passt.avx2"_kj, "/usr/bin/passt"_kj};
  int error = ENOENT;
  for (auto path :
       kj::ArrayPtr<const kj::StringPtr>(BUILDS).slice(__builtin_cpu_supports("avx2") ? 0 : 1, 2)) {
    int fd = open(path.cStr(), O_PATH | O_CLOEXEC);
    if (fd >= 0) return kj::AutoCloseFd(fd);
    error = errno;
  }
  UserError(codes::NO_PASST,
            kj::str(option, ": ", BUILDS[1], " cannot be opened: ", errnoText(error),
                    "; passt is what reaches the network for a guest without a tap"))
      .advice("see", kj::str("ls -l ", BUILDS[1]))
      .advice("mend", "sudo apt install passt")
      .raise();
}

namespace {

// A new file, its owner's alone: it will hold all that the guest says and hears. An empty one that
// is there already does, too; one with something in it is never written over.
void openCapture(kj::StringPtr option, kj::StringPtr path, NetFiles& files) {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::PCAP_FILE, kj::str(option, ": the capture file ", quote(path), " ", why))
        .advice("see", kj::str("ls -l ", shellWord(path)))
        .raise();
  };
  constexpr int FLAGS = O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  int fd = open(path.cStr(), FLAGS | O_CREAT | O_EXCL, 0600);
  bool isOurs = fd >= 0;
  if (fd < 0 && errno == EEXIST) fd = open(path.cStr(), FLAGS);
  if (fd < 0) refuse(kj::str("cannot be opened: ", errnoText(errno)));
  kj::AutoCloseFd file(fd);
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  if (!S_ISREG(info.st_mode))
    refuse(kj::str("is ", fileKind(info.st_mode), "; expected a new file"));
  if (info.st_size != 0) refuse("is there already and not empty; a capture goes into a new file");
  KJ_SYSCALL(fcntl(file, F_SETFL, 0));  // drops O_NONBLOCK
  if (isOurs) files.pcapTrial = kj::heap<TrialFile>(path, file);
  files.pcap = kj::mv(file);
}

void checkCaptures(kj::ArrayPtr<const NetPlan> nets, kj::ArrayPtr<const NetFiles> files) {
  auto statOf = [&](size_t i) {
    struct stat info = {};
    KJ_IF_MAYBE (file, files[i].pcap) {
      KJ_SYSCALL(fstat(*file, &info));
    }
    return info;
  };
  for (size_t i = 0; i < files.size(); i++) {
    for (size_t j = 0; j < i; j++) {
      if (files[i].pcap == nullptr || files[j].pcap == nullptr) continue;
      auto one = statOf(i), other = statOf(j);
      if (one.st_dev != other.st_dev || one.st_ino != other.st_ino) continue;
      UserError(codes::PCAP_FILE,
                kj::str(netName(nets[i]), " and ", netName(nets[j]), " have the same capture file ",
                        quote(KJ_ASSERT_NONNULL(nets[i].pcap)), "; each needs its own"))
          .raise();
    }
  }
}

}  // namespace

kj::Array<NetFiles> openNets(kj::ArrayPtr<const NetPlan> nets) {
  kj::Vector<NetFiles> all;
  for (auto& net : nets) {
    auto files = openBackend(net);
    KJ_IF_MAYBE (path, net.pcap) {
      openCapture(netName(net), *path, files);
    }
    all.add(kj::mv(files));
  }
  auto files = all.releaseAsArray();
  checkCaptures(nets, files);
  return files;
}

}  // namespace troupe
