#include "sandbox/fd_view.h"

#include <fcntl.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

constexpr kj::StringPtr EVENTFD_LINK = "anon_inode:[eventfd]"_kj;

// Of two entries for a number the one that what is there could be: `setup` gives its number up for
// the event loop's eventfd.
bool couldBe(const ProfileFd& fd, const SeenFd& seen) {
  kj::StringPtr kind = fd.kind;
  if (kind == "socket") return seen.isSocket();
  if (kind == "pipe") return seen.isPipe();
  if (kind == "eventfd") return seen.isEventFd();
  return !seen.isSocket() && !(seen.isPipe() && kind != "any") && !seen.isEventFd();
}

const ProfileFd* entryOf(const Profile& profile, const SeenFd& seen) {
  for (size_t i = 0; i < profile.fdCount; i++) {
    const ProfileFd& fd = profile.fds[i];
    bool covers = seen.number >= fd.number && seen.number < fd.number + fd.count;
    if (covers && couldBe(fd, seen)) return &fd;
  }
  return nullptr;
}

kj::String eventFdObject(int folder, kj::StringPtr name) {
  KJ_IF_MAYBE (info, readAll(folder, kj::str("fdinfo/", name).cStr())) {
    auto id = statusField(*info, "eventfd-id");
    const char* digits = id.cStr();
    while (*digits == ' ')
      digits++;
    if (*digits != '\0') return kj::str("eventfd:[", digits, "]");
  }
  return nullptr;
}

kj::String fileObject(const struct stat& info) {
  return kj::str("file:[", major(info.st_dev), ":", minor(info.st_dev), ":", info.st_ino, "]");
}

kj::String objectBehind(int folder, kj::StringPtr name, kj::StringPtr link) {
  if (link.startsWith("socket:[") || link.startsWith("pipe:[")) return kj::str(link);
  if (link == EVENTFD_LINK) return eventFdObject(folder, name);
  if (!link.startsWith("/")) return nullptr;
  struct stat info;
  if (fstatat(folder, kj::str("fd/", name).cStr(), &info, 0) < 0) return nullptr;
  return fileObject(info);
}

SeenFd look(int folder, kj::StringPtr name) {
  SeenFd seen = {uint32_t(strtoul(name.cStr(), nullptr, 10)), nullptr, nullptr, nullptr};
  KJ_IF_MAYBE (link, readLink(folder, kj::str("fd/", name).cStr())) {
    seen.link = kj::mv(*link);
    seen.object = objectBehind(folder, name, seen.link);
  }
  return seen;
}

}  // namespace

bool SeenFd::isSocket() const {
  return link.startsWith("socket:[");
}

bool SeenFd::isPipe() const {
  return link.startsWith("pipe:[");
}

bool SeenFd::isEventFd() const {
  return link == EVENTFD_LINK;
}

bool SeenFd::isFile() const {
  return link.startsWith("/") && !link.startsWith("/memfd:");
}

kj::Array<SeenFd> viewFds(const Profile& profile, pid_t pid) {
  kj::Vector<SeenFd> all;
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, kj::str("/proc/", pid).cStr(), O_RDONLY | O_DIRECTORY)) {
    KJ_IF_MAYBE (names, listFolder(*folder, "fd")) {
      for (auto& name : *names) {
        auto seen = look(*folder, name);
        if (seen.link.size() == 0) continue;  // it was closed meanwhile
        seen.entry = entryOf(profile, seen);
        all.add(kj::mv(seen));
      }
    }
  }
  auto sorted = all.releaseAsArray();
  std::sort(sorted.begin(), sorted.end(),
            [](const SeenFd& a, const SeenFd& b) { return a.number < b.number; });
  return sorted;
}

kj::String objectOf(int fd) {
  // The same words without a look at /proc, for what most fds are.
  struct stat info;
  if (fstat(fd, &info) < 0) return nullptr;
  if (S_ISSOCK(info.st_mode)) return kj::str("socket:[", info.st_ino, "]");
  bool isFile = S_ISREG(info.st_mode) || S_ISBLK(info.st_mode) || S_ISCHR(info.st_mode);
  if (isFile) return fileObject(info);
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY)) {
    return look(*folder, kj::str(fd)).object;
  }
  return nullptr;
}

kj::StringPtr stageOf(const Profile& profile, pid_t pid, int inherited) {
  int filters = 0;
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, kj::str("/proc/", pid).cStr(), O_RDONLY | O_DIRECTORY)) {
    KJ_IF_MAYBE (status, readAll(*folder, "status")) {
      filters = atoi(statusField(*status, "Seccomp_filters").cStr()) - inherited;
    }
  }
  kj::StringPtr stage = "none";
  bool isLast = true;
  for (size_t i = 0; i < profile.filterCount; i++) {
    kj::StringPtr name = profile.filters[i].stage;
    if (name.startsWith("thread:")) continue;
    isLast = filters-- > 0;
    if (isLast) stage = name;
  }
  return isLast && stage == "ready" ? "run"_kj : stage;
}

}  // namespace troupe::sandbox
