#include "vmm/files/disk_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

namespace troupe {
namespace {

// A file without a name for long; each open() is an open file of its own.
class File {
 public:
  File() {
    char name[] = "/tmp/disk_lock_test.XXXXXX";
    int raw;
    KJ_SYSCALL(raw = mkostemp(name, O_CLOEXEC));
    first = kj::AutoCloseFd(raw);
    unlink(name);
  }
  kj::AutoCloseFd open(int flags = O_RDWR) const {
    auto path = kj::str("/proc/self/fd/", first.get());
    int raw;
    KJ_SYSCALL(raw = ::open(path.cStr(), flags | O_CLOEXEC));
    return kj::AutoCloseFd(raw);
  }

 private:
  kj::AutoCloseFd first;
};

std::string whyNot(kj::AsyncIoContext& io, kj::Promise<void> promise) {
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { promise.wait(io.waitScope); })) {
    return failure->getDescription().cStr();
  }
  return "";
}

TEST(DiskLock, OneThatIsLeavingIsWaitedForWhileTheLoopGoesOn) {
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  File file;
  auto holder = file.open(), next = file.open();
  lockFile({holder, "d", false, false});
  auto locked = lockFile(timer, {next, "d", false, false});
  EXPECT_FALSE(locked.poll(io.waitScope));  // others have their turn
  auto leaving = timer.afterDelay(1 * kj::MILLISECONDS).then([&]() { holder = nullptr; });
  leaving.wait(io.waitScope);
  locked.wait(io.waitScope);
  EXPECT_NE(whyNot(io, lockFile(timer, {file.open(), "d", true, false})), "");
}

TEST(DiskLock, OneThatStaysIsNamedInTheEnd) {
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  File file;
  auto writer = file.open(), other = file.open();
  lockFile({writer, "d", false, false});
  auto why = whyNot(io, lockFile(timer, {other, "disk.img", false, false}));
  EXPECT_EQ(why.find("TRP-cfg-024: disk \"disk.img\" is in use; "), 0u) << why;
  why = whyNot(io, lockFile(timer, {other, "base.img", true, true}));
  EXPECT_EQ(why.find("TRP-cfg-024: backing file \"base.img\" is in use "), 0u) << why;
}

TEST(DiskLock, ReadersShareAndWhatIsLockedStaysSo) {
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  File file;
  auto one = file.open(O_RDONLY), other = file.open(O_RDONLY);
  lockFile({one, "d", true, false});
  lockFile(timer, {one, "d", true, false}).wait(io.waitScope);
  lockFile(timer, {other, "d", true, false}).wait(io.waitScope);
}

TEST(DiskLock, ADiskIsGivenBackWhenNobodyHasItAnyMore) {
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  File file;
  auto fd = file.open();
  lockFile({fd, "d", false, false});
  kj::AutoCloseFd elsewhere(dup(fd));  // as a process that has been killed and is not gone yet
  auto released = releaseFile(timer, kj::mv(fd));
  EXPECT_FALSE(released.poll(io.waitScope));
  elsewhere = nullptr;
  released.wait(io.waitScope);
  lockFile({file.open(), "d", false, false});
}

}  // namespace
}  // namespace troupe
