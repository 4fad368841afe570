#include "vmm/control/client_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace troupe {
namespace {

// A listening socket without a name in the file system.
struct Listener {
  kj::AutoCloseFd fd;
  sockaddr_un address = {};
  socklen_t length = sizeof(sa_family_t);

  Listener() {
    int raw;
    KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    fd = kj::AutoCloseFd(raw);
    address.sun_family = AF_UNIX;
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), length));  // the kernel names it
    length = sizeof(address);
    KJ_SYSCALL(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length));
    KJ_SYSCALL(listen(fd, 16));
  }

  void connect(int client) const {
    KJ_SYSCALL(::connect(client, reinterpret_cast<const sockaddr*>(&address), length));
  }
};

kj::AutoCloseFd newClient() {
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return kj::AutoCloseFd(raw);
}

bool isHungUp(int client) {
  char byte;
  return recv(client, &byte, 1, MSG_DONTWAIT) == 0;
}

// Takes every number that this process may still give an fd.
kj::Vector<kj::AutoCloseFd> takeAllFds() {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = 64;
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
  kj::Vector<kj::AutoCloseFd> taken;
  for (;;) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return taken;
    taken.add(fd);
  }
}

TEST(ClientSocket, LetsClientsInUntilNobodyWaits) {
  auto io = kj::setupAsyncIo();
  Listener listener;
  ClientSocket door(io, listener.fd, ClientSocket::Whom::OWNER_AND_ROOT, "clients");
  EXPECT_TRUE(door.accept() == nullptr);
  auto ready = door.whenReady();
  auto client = newClient();
  listener.connect(client);
  ready.wait(io.waitScope);
  auto met = door.accept();
  ASSERT_TRUE(met != nullptr);
  EXPECT_FALSE(isHungUp(client));
  EXPECT_TRUE(door.accept() == nullptr);
}

TEST(ClientSocket, WithoutAnFdClientsAreHungUpOnAndServedAgainWhenThereIsOne) {
  auto io = kj::setupAsyncIo();
  Listener listener;
  ClientSocket door(io, listener.fd, ClientSocket::Whom::OWNER_AND_ROOT, "clients");
  auto first = newClient(), second = newClient(), later = newClient();
  testing::internal::CaptureStderr();
  auto taken = takeAllFds();
  listener.connect(first);
  listener.connect(second);
  EXPECT_TRUE(door.accept() == nullptr);
  EXPECT_TRUE(isHungUp(first));
  EXPECT_TRUE(isHungUp(second));
  // It does not depend on another one coming that somebody looks again.
  door.whenReady().wait(io.waitScope);
  EXPECT_TRUE(door.accept() == nullptr);
  taken.clear();
  auto said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("clients are hung up on: "), std::string::npos) << said;
  EXPECT_NE(said.find("(EMFILE)"), std::string::npos) << said;
  EXPECT_EQ(said.find("hung up", said.find("hung up") + 1), std::string::npos) << said;

  listener.connect(later);
  auto met = door.accept();
  EXPECT_TRUE(met != nullptr);
  EXPECT_FALSE(isHungUp(later));
}

}  // namespace
}  // namespace troupe
