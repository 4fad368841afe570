#include "vmm/net/net_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tests/files/temporary_folder.h"
#include "vmm/net/tap.h"

namespace troupe {
namespace {

NetPlan ofFds(std::initializer_list<int> fds) {
  NetPlan plan = {};
  plan.backend = NetPlan::Backend::FD;
  plan.fds = kj::heapArray<int>(fds);
  plan.queues = static_cast<uint16_t>(fds.size());
  return plan;
}

NetPlan ofTap(kj::StringPtr name) {
  NetPlan plan = {};
  plan.backend = NetPlan::Backend::TAP;
  plan.tap = kj::heapString(name);
  plan.queues = 1;
  return plan;
}

NetPlan ofUser() {
  NetPlan plan = {};
  plan.backend = NetPlan::Backend::USER;
  plan.queues = 1;
  return plan;
}

kj::Array<NetFiles> open(NetPlan plan) {
  kj::Vector<NetPlan> all;
  all.add(kj::mv(plan));
  return openNets(all);
}

std::string errorOf(NetPlan plan) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { open(kj::mv(plan)); })) {
    std::string description = exception->getDescription().cStr();
    return description.substr(0, description.find('\n'));
  }
  return "";
}

struct Pair {
  explicit Pair(int type) { KJ_SYSCALL(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds)); }
  ~Pair() {
    close(fds[0]);
    close(fds[1]);
  }
  int fds[2];
};

struct Folder: testing::TemporaryFolder {
  kj::String file(kj::StringPtr name) const { return kj::str(path.c_str(), "/", name); }
};

TEST(NetFiles, ASocketSaysByItsTypeHowFramesGo) {
  Pair stream(SOCK_STREAM), packets(SOCK_SEQPACKET), datagrams(SOCK_DGRAM);
  EXPECT_EQ(open(ofFds({stream.fds[0]}))[0].kind, NetFiles::Kind::STREAM);
  EXPECT_EQ(open(ofFds({packets.fds[0]}))[0].kind, NetFiles::Kind::PACKETS);
  EXPECT_EQ(open(ofFds({datagrams.fds[0], packets.fds[0]}))[0].fds.size(), 2u);
}

TEST(NetFiles, OtherFdsAreRefused) {
  Pair one(SOCK_STREAM), other(SOCK_STREAM), packets(SOCK_DGRAM);
  constexpr int closed = 9999;
  int event = eventfd(0, EFD_CLOEXEC);
  int lonely = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(errorOf(ofFds({closed})),
            std::string(kj::str("TRP-net-007: --net fd=", closed, ": fd ", closed,
                                " is not open; whoever starts troupe has to leave it open for it "
                                "(fd=N names it)")
                            .cStr()));
  EXPECT_EQ(errorOf(ofFds({event})).substr(0, 11), "TRP-net-007");
  EXPECT_EQ(errorOf(ofFds({lonely})).substr(0, 11), "TRP-net-007");
  EXPECT_EQ(errorOf(ofFds({inet})).substr(0, 11), "TRP-net-007");
  EXPECT_EQ(errorOf(ofFds({one.fds[0], other.fds[0]})).substr(0, 11), "TRP-net-007");
  EXPECT_EQ(errorOf(ofFds({packets.fds[0], one.fds[0]})).substr(0, 11), "TRP-net-007");
  for (int fd : {event, lonely, inet})
    close(fd);
}

TEST(NetFiles, AMissingTapIsNamedWithTheCommandThatMakesOne) {
  auto failure = kj::runCatchingExceptions([] { open(ofTap("troupe-none")); });
  std::string text = KJ_ASSERT_NONNULL(failure).getDescription().cStr();
  EXPECT_EQ(text.substr(0, 11), "TRP-net-004");
  EXPECT_NE(text.find("ip tuntap add dev troupe-none mode tap"), std::string::npos) << text;
}

// Runs `body` in a child with a network of its own, in which it is root; what it prints is wanted.
template <typename Body>
std::string inOwnNetwork(Body&& body) {
  int pipe[2];
  KJ_SYSCALL(::pipe2(pipe, O_CLOEXEC));
  uid_t uid = geteuid();
  gid_t gid = getegid();
  pid_t child = fork();
  if (child == 0) {
    std::string said;
    auto failure = kj::runCatchingExceptions([&] {
      KJ_SYSCALL(unshare(CLONE_NEWUSER | CLONE_NEWNET));
      auto write = [](const char* path, kj::StringPtr text) {
        int fd = ::open(path, O_WRONLY | O_CLOEXEC);
        KJ_ASSERT(fd >= 0 && ::write(fd, text.begin(), text.size()) == ssize_t(text.size()), path);
        close(fd);
      };
      write("/proc/self/setgroups", "deny");
      write("/proc/self/uid_map", kj::str("0 ", uid, " 1"));
      write("/proc/self/gid_map", kj::str("0 ", gid, " 1"));
      said = body();
    });
    KJ_IF_MAYBE (exception, failure) {
      said = exception->getDescription().cStr();
    }
    ssize_t written = ::write(pipe[1], said.data(), said.size());
    _exit(written == ssize_t(said.size()) ? 0 : 1);
  }
  close(pipe[1]);
  char text[4096];
  size_t size = 0;
  for (ssize_t n; (n = read(pipe[0], text + size, sizeof(text) - size)) > 0;)
    size += n;
  close(pipe[0]);
  waitpid(child, nullptr, 0);
  return std::string(text, size);
}

// A tap that somebody else keeps open, so that it stays.
int makeTap(const char* name, int flags) {
  int fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  KJ_ASSERT(fd >= 0, "/dev/net/tun cannot be opened");
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  KJ_SYSCALL(ioctl(fd, TUNSETIFF, &request));
  return fd;
}

constexpr int WITH_HEADER = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

// As `ip tuntap add` does.
void keepTap(const char* name, int flags) {
  int fd = makeTap(name, flags);
  KJ_SYSCALL(ioctl(fd, TUNSETPERSIST, 1));
  close(fd);
}

TEST(Tap, IsOpenedWithItsHeaderQueuesMtuAndOffloads) {
  EXPECT_EQ("3 queues, mtu 1500, header 12, offloads", inOwnNetwork([] {
              keepTap("t0", WITH_HEADER | IFF_MULTI_QUEUE);
              auto plan = ofTap("t0");
              plan.queues = 3;
              auto files = open(kj::mv(plan));
              int header = 0;
              KJ_SYSCALL(ioctl(files[0].fds[2], TUNGETVNETHDRSZ, &header));
              bool all = (files[0].offloads & (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) ==
                         (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
              return std::string(kj::str(files[0].fds.size(), " queues, mtu ", files[0].mtu,
                                         ", header ", header, all ? ", offloads" : "")
                                     .cStr());
            }));
}

TEST(Tap, OfAnyMakeServesOneQueue) {
  for (int flags : {WITH_HEADER, WITH_HEADER | IFF_MULTI_QUEUE, IFF_TAP | IFF_NO_PI}) {
    EXPECT_EQ("1", inOwnNetwork([flags] {
                keepTap("t0", flags);
                return std::string(kj::str(open(ofTap("t0"))[0].fds.size()).cStr());
              }));
  }
}

// The name of an open tap.
kj::String nameOf(const Tap& tap) {
  ifreq request = {};
  KJ_SYSCALL(ioctl(tap.queues[0], TUNGETIFF, &request));
  return kj::heapString(request.ifr_name);
}

TEST(Tap, OfAPrefixTheFirstThatNobodyUsesIsOpened) {
  EXPECT_EQ("vm0 vm1 TRP-net-004", inOwnNetwork([] {
              keepTap("vm0", WITH_HEADER);
              keepTap("vm1", WITH_HEADER);
              auto first = openFreeTap("--realm-net", "vm");
              auto second = openFreeTap("--realm-net", "vm");
              auto third = kj::runCatchingExceptions([] { openFreeTap("--realm-net", "vm"); });
              auto refusal = KJ_ASSERT_NONNULL(third).getDescription();
              auto said = kj::str(nameOf(first), " ", nameOf(second), " ",
                                  kj::heapString(refusal.begin(), 11));
              return std::string(said.cStr());
            }));
}

TEST(Tap, OfSeveralQueuesIsNoGuestsOwn) {
  EXPECT_EQ("TRP-net-006", inOwnNetwork([] {
              keepTap("vm0", WITH_HEADER | IFF_MULTI_QUEUE);
              auto failure = kj::runCatchingExceptions([] { openFreeTap("--realm-net", "vm"); });
              return std::string(KJ_ASSERT_NONNULL(failure).getDescription().cStr(), 11);
            }));
}

TEST(Tap, ABridgeGetsAPortForEachGuestWhileItLives) {
  EXPECT_EQ("2 ports, up; 0 ports; TRP-net-004", inOwnNetwork([] {
              int any = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
              char name[IFNAMSIZ] = "br0";
              KJ_SYSCALL(ioctl(any, SIOCBRADDBR, name));
              auto isPort = [any](kj::StringPtr tap) {
                ifreq port = {}, bridge = {};
                strncpy(port.ifr_name, tap.cStr(), IFNAMSIZ - 1);
                if (ioctl(any, SIOCGIFINDEX, &port) < 0) return false;
                strncpy(bridge.ifr_name, "br0", IFNAMSIZ);
                bridge.ifr_ifindex = port.ifr_ifindex;
                return ioctl(any, SIOCBRADDIF, &bridge) < 0 && errno == EBUSY;
              };
              kj::Vector<kj::String> names;
              bool up = true;
              {
                auto first = makeBridgedTap("--realm-net", "br0");
                auto second = makeBridgedTap("--realm-net", "br0");
                names.add(nameOf(first));
                names.add(nameOf(second));
                for (auto& tap : names) {
                  ifreq flags = {};
                  strncpy(flags.ifr_name, tap.cStr(), IFNAMSIZ - 1);
                  KJ_SYSCALL(ioctl(any, SIOCGIFFLAGS, &flags));
                  up = up && (flags.ifr_flags & IFF_UP) && isPort(tap);
                }
              }
              int left = isPort(names[0]) + isPort(names[1]);
              auto none = kj::runCatchingExceptions([] { makeBridgedTap("--realm-net", "br1"); });
              auto refusal = KJ_ASSERT_NONNULL(none).getDescription();
              auto said = kj::str(names[0] == names[1] ? 1 : 2, " ports", up ? ", up" : "", "; ",
                                  left, " ports; ", kj::heapString(refusal.begin(), 11));
              return std::string(said.cStr());
            }));
}

TEST(Tap, ThatCannotServeIsRefused) {
  auto code = [](int flags, uint16_t queues, bool busy) {
    return inOwnNetwork([=] {
             int fd = -1;
             if (busy)
               fd = makeTap("t0", flags);
             else
               keepTap("t0", flags);
             auto plan = ofTap("t0");
             plan.queues = queues;
             auto error = errorOf(kj::mv(plan));
             close(fd);
             return error;
           })
        .substr(0, 11);
  };
  EXPECT_EQ("TRP-net-006", code(IFF_TUN | IFF_NO_PI, 1, false)) << "a tun";
  EXPECT_EQ("TRP-net-006", code(WITH_HEADER, 2, false)) << "too few queues";
  EXPECT_EQ("TRP-net-006", code(WITH_HEADER, 1, true)) << "in use";
}

TEST(Tap, WithASmallerMtuThanAskedForIsRefused) {
  std::string error = inOwnNetwork([] {
    keepTap("t0", WITH_HEADER);
    auto plan = ofTap("t0");
    plan.mtu = 9000;
    return errorOf(kj::mv(plan));
  });
  EXPECT_EQ(
      "TRP-net-006: --net tap=t0: mtu=9000 is more than the tap's MTU of 1500, which would drop "
      "the guest's longer frames",
      error);
}

TEST(Tap, AsAnFdNeedsTheHeader) {
  auto error = [](int flags) {
    return inOwnNetwork([flags] {
      int fd = makeTap("t0", flags);
      std::string told = errorOf(ofFds({fd}));
      return told.empty() ? "served" : told.substr(told.find(" fd ", 20) + 1).substr(5);
    });
  };
  EXPECT_EQ("served", error(WITH_HEADER));
  EXPECT_EQ("is a tap without virtio-net headers; it has to be opened with IFF_VNET_HDR",
            error(IFF_TAP | IFF_NO_PI));
  EXPECT_EQ("is a tun, which moves no Ethernet frames; expected a tap", error(IFF_TUN | IFF_NO_PI));
}

TEST(Tap, OfWhichQueuesAreMixedIsRefused) {
  std::string error = inOwnNetwork([] {
    int one = makeTap("t0", WITH_HEADER | IFF_MULTI_QUEUE);
    int other = makeTap("t1", WITH_HEADER | IFF_MULTI_QUEUE);
    return errorOf(ofFds({one, other}));
  });
  EXPECT_NE(error.find("the queues of a device are of one tap"), std::string::npos) << error;
}

TEST(NetFiles, ACaptureFileIsItsOwnersAlone) {
  Folder folder;
  auto plan = ofUser();
  plan.pcap = folder.file("new.pcap");
  mode_t before = umask(0);
  auto files = open(kj::mv(plan));
  umask(before);
  struct stat info;
  ASSERT_EQ(stat(folder.file("new.pcap").cStr(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
}

TEST(NetFiles, ACaptureFileOfAStartThatFailedGoesAndAnEmptyOneOfTheUsersStays) {
  Folder folder;
  for (bool isThere : {false, true}) {
    auto plan = ofUser();
    plan.pcap = folder.file("tried.pcap");
    if (isThere) close(::open(folder.file("tried.pcap").cStr(), O_CREAT | O_WRONLY, 0600));
    { auto files = open(kj::mv(plan)); }
    EXPECT_EQ(access(folder.file("tried.pcap").cStr(), F_OK) == 0, isThere);
  }
}

TEST(NetFiles, AFileWithSomethingInItIsNeverWrittenOver) {
  Folder folder;
  auto path = folder.file("precious");
  ASSERT_EQ(system(kj::str("echo precious > ", path).cStr()), 0);
  auto plan = ofUser();
  plan.pcap = kj::heapString(path);
  EXPECT_EQ(errorOf(kj::mv(plan)).substr(0, 11), "TRP-net-008");
  struct stat info;
  ASSERT_EQ(stat(path.cStr(), &info), 0);
  EXPECT_EQ(info.st_size, 9);
}

TEST(NetFiles, WhatIsNoFileIsNotCapturedInto) {
  Folder folder;
  ASSERT_EQ(mkfifo(folder.file("pipe").cStr(), 0600), 0);
  for (auto& path : kj::arr(folder.file("pipe"), kj::str("/dev/null"), kj::str(folder.path.c_str()),
                            folder.file("missing/x"))) {
    auto plan = ofUser();
    plan.pcap = kj::heapString(path);
    EXPECT_EQ(errorOf(kj::mv(plan)).substr(0, 11), "TRP-net-008") << path.cStr();
  }
}

TEST(NetFiles, TwoDevicesDoNotShareACapture) {
  Folder folder;
  kj::Vector<NetPlan> plans;
  for (int i = 0; i < 2; i++) {
    plans.add(ofUser());
    plans.back().pcap = folder.file("one.pcap");
  }
  auto failure = kj::runCatchingExceptions([&] { openNets(plans); });
  EXPECT_EQ(std::string(KJ_ASSERT_NONNULL(failure).getDescription().cStr()).substr(0, 11),
            "TRP-net-008");
}

}  // namespace
}  // namespace troupe
