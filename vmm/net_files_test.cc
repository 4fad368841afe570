#include "vmm/net_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

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

struct Folder {
  Folder() { KJ_ASSERT(mkdtemp(path) != nullptr); }
  ~Folder() { KJ_ASSERT(system(kj::str("rm -r ", path).cStr()) == 0); }
  kj::String file(kj::StringPtr name) const { return kj::str(path, "/", name); }
  char path[32] = "/tmp/net_files.XXXXXX";
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
  for (auto& path : kj::arr(folder.file("pipe"), kj::str("/dev/null"), kj::str(folder.path),
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
