#include "devices/blk/testing/scratch_disk.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/string.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace troupe::blk::testing {
namespace {

constexpr uint64_t SECTOR_BYTES = 512;
constexpr size_t CHUNK_BYTES = 1 << 20;

// /var/tmp outlives a reboot by its definition, so it is on a disk where there is one.
constexpr char FOLDER[] = "/var/tmp";

// Every Linux has a tmpfs here. A memfd is one's file too, but no file by the jail's measure.
constexpr char MEMORY_FOLDER[] = "/dev/shm";

kj::AutoCloseFd make(Medium medium) {
  const char* folder = medium == Medium::MEMORY ? MEMORY_FOLDER : FOLDER;
  int direct = medium == Medium::DIRECT ? O_DIRECT : 0;
  int fd;
  KJ_SYSCALL(fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | direct, 0600), folder);
  return kj::AutoCloseFd(fd);
}

// Another way into the file, through the page cache.
kj::AutoCloseFd reopen(int fd, int flags) {
  int other;
  KJ_SYSCALL(other = open(kj::str("/proc/self/fd/", fd).cStr(), flags | O_CLOEXEC));
  return kj::AutoCloseFd(other);
}

void writeFile(const char* path, kj::StringPtr text) {
  int fd;
  KJ_SYSCALL(fd = open(path, O_WRONLY | O_CLOEXEC), path);
  kj::AutoCloseFd file(fd);
  KJ_SYSCALL(write(file, text.begin(), text.size()), path, text);
}

}  // namespace

kj::AutoCloseFd onFullFileSystem(uint64_t bytes, uint64_t roomBytes) {
  auto options = kj::str("mode=700,size=", roomBytes);
  auto users = kj::str("0 ", geteuid(), " 1");
  auto groups = kj::str("0 ", getegid(), " 1");
  // The child shares the table of fds: what it opens there stays when it, its namespaces and the
  // name of the mount are gone.
  pid_t child;
  KJ_SYSCALL(child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    int fd = -1;
    auto failure = kj::runCatchingExceptions([&] {
      KJ_SYSCALL(unshare(CLONE_NEWUSER | CLONE_NEWNS));
      writeFile("/proc/self/setgroups", "deny");
      writeFile("/proc/self/uid_map", users);
      writeFile("/proc/self/gid_map", groups);
      KJ_SYSCALL(mount("tmpfs", "/tmp", "tmpfs", 0, options.cStr()));
      KJ_SYSCALL(fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    });
    _exit(failure == nullptr ? fd : 255);
  }
  int status;
  KJ_SYSCALL(waitpid(child, &status, 0));
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) != 255, "no tmpfs in a namespace", status);
  kj::AutoCloseFd file(WEXITSTATUS(status));
  KJ_SYSCALL(ftruncate(file, bytes));
  return file;
}

bool isAvailable(Medium medium) {
  if (medium == Medium::MEMORY) return true;
  struct statfs system;
  KJ_SYSCALL(statfs(FOLDER, &system));
  return system.f_type != TMPFS_MAGIC && system.f_type != RAMFS_MAGIC;
}

ScratchDisk::ScratchDisk(Medium medium, uint64_t bytes) : bytes(bytes), file(make(medium)) {
  auto writer = reopen(file, O_RDWR);
  auto chunk = kj::heapArray<kj::byte>(kj::min(bytes, uint64_t(CHUNK_BYTES)));
  for (uint64_t offset = 0; offset < bytes; offset += chunk.size()) {
    size_t size = kj::min(bytes - offset, chunk.size());
    for (size_t at = 0; at < size; at += SECTOR_BYTES)
      memset(chunk.begin() + at, sectorByte((offset + at) / SECTOR_BYTES),
             kj::min(SECTOR_BYTES, size - at));
    KJ_ASSERT(pwrite(writer, chunk.begin(), size, offset) == ssize_t(size));
  }
  KJ_SYSCALL(fdatasync(writer));
}

kj::Array<kj::byte> ScratchDisk::contents(uint64_t offset, uint64_t size) const {
  auto reader = reopen(file, O_RDONLY);
  auto data = kj::heapArray<kj::byte>(size);
  KJ_ASSERT(pread(reader, data.begin(), size, offset) == ssize_t(size));
  return data;
}

void ScratchDisk::truncate(uint64_t size) {
  KJ_SYSCALL(ftruncate(file, size));
}

kj::AutoCloseFd ScratchDisk::openReadOnly() const {
  return reopen(file, O_RDONLY);
}

void ScratchDisk::dropCache() {
  KJ_SYSCALL(fdatasync(file));
  KJ_ASSERT(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0);
}

}  // namespace troupe::blk::testing
