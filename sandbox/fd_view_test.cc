#include "sandbox/fd_view.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace troupe::sandbox {
namespace {

kj::AutoCloseFd own(int fd) {
  KJ_REQUIRE(fd >= 0);
  return kj::AutoCloseFd(fd);
}

kj::AutoCloseFd copyOf(int fd) {
  return own(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

TEST(FdView, CopiesOfAnFdAreOneObjectAndOtherFdsAreOthers) {
  int ends[2], pipes[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  KJ_SYSCALL(pipe2(pipes, O_CLOEXEC));
  kj::AutoCloseFd fds[] = {own(ends[0]),
                           own(ends[1]),
                           own(pipes[0]),
                           own(eventfd(0, EFD_CLOEXEC)),
                           own(eventfd(0, EFD_CLOEXEC)),
                           own(memfd_create("a", MFD_CLOEXEC)),
                           own(memfd_create("a", MFD_CLOEXEC))};
  for (auto& one : fds) {
    auto object = objectOf(one);
    EXPECT_GT(object.size(), 0u) << one.get();
    EXPECT_EQ(object, objectOf(copyOf(one)));
    for (auto& other : fds)
      EXPECT_EQ(object == objectOf(other), one.get() == other.get());
  }
  // Both ends of a pipe are the same pipe.
  EXPECT_EQ(objectOf(fds[2]), objectOf(own(pipes[1])));
}

TEST(FdView, NamesTheFdsOfAProcessByItsProfile) {
  auto file = own(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  auto first = own(fcntl(file, F_DUPFD_CLOEXEC, 100));
  auto event = own(eventfd(0, EFD_CLOEXEC));
  auto second = own(fcntl(event, F_DUPFD_CLOEXEC, 101));
  ProfileFd entries[] = {
      {"disk", uint32_t(first.get()), 1, "file", true, false, false, false},
      {"pair", uint32_t(second.get()), 2, "socket", false, true, false, false},
      {"kick", uint32_t(second.get()), 2, "eventfd", false, true, false, false},
  };
  Profile profile = {};
  profile.fds = entries;
  profile.fdCount = kj::size(entries);

  bool sawFile = false, sawEvent = false, sawOther = false;
  for (auto& fd : viewFds(profile, getpid())) {
    if (fd.number == first.get()) {
      sawFile = true;
      EXPECT_EQ(fd.entry, &entries[0]);
      EXPECT_TRUE(fd.isFile());
    } else if (fd.number == second.get()) {
      sawEvent = true;
      EXPECT_EQ(fd.entry, &entries[2]);
      EXPECT_EQ(fd.index(), 0u);
      EXPECT_EQ(fd.object, objectOf(event));
    } else if (fd.number == event.get()) {
      sawOther = true;
      EXPECT_EQ(fd.entry, nullptr);
    }
  }
  EXPECT_TRUE(sawFile && sawEvent && sawOther);
}

TEST(FdView, AProcessThatIsGoneHasNone) {
  EXPECT_EQ(viewFds(Profile{}, 0x7ffffff0).size(), 0u);
}

}  // namespace
}  // namespace troupe::sandbox
