// The fd table: the profile's numbers and no other, each of the profile's kind.
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sandbox/attest_subject.h"
#include "sandbox/errno_text.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

struct OpenFd {
  uint32_t number;
  kj::String link;  // what /proc/PID/fd says it is; "?" when that cannot be read
};

bool matches(const Subject& subject, kj::StringPtr kind, const OpenFd& open) {
  kj::StringPtr link = open.link;
  if (kind == "any") return true;
  if (kind == "socket") return link.startsWith("socket:[");
  if (kind == "pipe") return link.startsWith("pipe:[");
  if (kind == "memfd") return link.startsWith("/memfd:");
  if (kind == "eventfd") return link == "anon_inode:[eventfd]";
  if (kind == "epoll") return link == "anon_inode:[eventpoll]";
  if (kind == "signalfd") return link == "anon_inode:[signalfd]";
  if (kind == "timerfd") return link == "anon_inode:[timerfd]";
  if (kind == "io_uring") return link == "anon_inode:[io_uring]";
  if (kind == "kvm") return link == "/dev/kvm";
  if (kind == "kvm_vm") return link == "anon_inode:kvm-vm";
  if (kind == "kvm_vcpu") return link.startsWith("anon_inode:kvm-vcpu");

  struct stat info;
  if (fstatat(subject.folder, kj::str("fd/", open.number).cStr(), &info, 0) < 0) return false;
  if (kind == "file") {
    return (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)) && !link.startsWith("/memfd:");
  }
  if (kind == "character_device") return S_ISCHR(info.st_mode);
  if (kind == "terminal") {
    return S_ISCHR(info.st_mode) && (link.startsWith("/dev/pts/") || link.startsWith("/dev/tty") ||
                                     link.startsWith("/dev/ptmx") || link == "/dev/console");
  }
  return false;
}

bool covers(const ProfileFd& fd, uint32_t number) {
  return number >= fd.number && number < fd.number + fd.count;
}

kj::String layerOf(const ProfileFd& fd) {
  return fd.count == 1 ? kj::str("fd ", fd.number, " ", fd.name)
                       : kj::str("fd ", fd.number, "-", fd.number + fd.count - 1, " ", fd.name);
}

// A memfd made to be sealed against execution has no x in its mode, and cannot get one.
void checkExecutable(Subject& subject, const ProfileFd& fd, const OpenFd& open) {
  bool wanted = subject.executableSeals && fd.kind == "memfd"_kj;
  if (!wanted) return;
  struct stat info;
  auto path = kj::str("fd/", open.number);
  bool sealed = fstatat(subject.folder, path.cStr(), &info, 0) == 0 && (info.st_mode & 0111) == 0;
  if (sealed) return;
  subject.differ(layerOf(fd), "its fd ", open.number, " (", fd.name,
                 ") is memory that could be executed");
}

// Whether a serving actor is about to put it where it belongs, or has just done so: what arrives by
// RPC takes the lowest free number first. It is then the same socket, pipe or file as one that is
// placed.
bool isOnItsWay(const Subject& subject, const OpenFd& open, kj::ArrayPtr<const OpenFd> all) {
  bool isFile = open.link.startsWith("/") && !open.link.startsWith("/memfd:");
  bool named = isFile || open.link.startsWith("socket:[") || open.link.startsWith("pipe:[");
  if (!named || subject.options.stage != Stage::RUN) return false;
  for (size_t i = 0; i < subject.profile.fdCount; i++) {
    const ProfileFd& fd = subject.profile.fds[i];
    if (fd.handed || fd.made) continue;
    for (const OpenFd& one : all) {
      if (covers(fd, one.number) && one.link == open.link) return true;
    }
  }
  return false;
}

// A helper opens sockets and what it waits with as it goes, at the kernel's numbers.
bool isHelpersOwn(const Subject& subject, const OpenFd& open) {
  if (!subject.profile.layers.helper.is) return false;
  for (kj::StringPtr kind : {"socket"_kj, "pipe"_kj, "epoll"_kj, "timerfd"_kj}) {
    if (matches(subject, kind, open)) return true;
  }
  return false;
}

// Whether an fd of the profile may have this number, and be what is there.
void checkFd(Subject& subject, const OpenFd& open, kj::ArrayPtr<const OpenFd> all) {
  bool start = subject.options.stage == Stage::START;
  const ProfileFd* expected = nullptr;
  for (size_t i = 0; i < subject.profile.fdCount; i++) {
    const ProfileFd& fd = subject.profile.fds[i];
    if (!covers(fd, open.number) || (fd.closed && !start)) continue;
    expected = &fd;
    // In `start` a number may hold a placeholder, or what its next user puts there.
    if (start && !fd.handed) return;
    if (matches(subject, fd.kind, open)) return checkExecutable(subject, fd, open);
  }
  if (expected != nullptr) {
    subject.differ(layerOf(*expected), "its fd ", open.number, " is ", open.link,
                   "; the profile's \"", expected->name, "\" is of kind ", expected->kind);
    return;
  }
  if (isHelpersOwn(subject, open)) return;
  auto layer = kj::str("fd ", open.number);
  bool onItsWay = isOnItsWay(subject, open, all);
  subject.seen(layer, open.link, onItsWay ? ", on its way to its place" : "");
  if (onItsWay) return;
  subject.differ(layer, "its fd ", open.number, " (", open.link, ") is not in its profile");
}

void checkOpen(Subject& subject, const ProfileFd& fd, kj::ArrayPtr<const OpenFd> open) {
  if (fd.optional || fd.closed) return;
  for (uint32_t number = fd.number; number < fd.number + fd.count; number++) {
    bool found = false;
    for (const OpenFd& one : open)
      found |= one.number == number;
    if (!found) subject.differ(layerOf(fd), "its fd \"", fd.name, "\" (", number, ") is not open");
  }
}

// One row for each name of the profile: how many of a range are open, and what the first one is.
void show(Subject& subject, const ProfileFd& fd, kj::ArrayPtr<const OpenFd> open) {
  if (!subject.options.observe || (fd.closed && subject.options.stage != Stage::START)) return;
  const OpenFd* first = nullptr;
  uint32_t count = 0;
  for (const OpenFd& one : open) {
    if (!covers(fd, one.number)) continue;
    if (first == nullptr) first = &one;
    count++;
  }
  if (first == nullptr) {
    subject.seen(layerOf(fd), "not open");
  } else {
    subject.seen(layerOf(fd), fd.kind, ": ", first->link,
                 fd.count == 1 ? kj::str() : kj::str(", ", count, " of ", fd.count, " open"));
  }
}

kj::String linkAt(const Subject& subject, kj::StringPtr name) {
  KJ_IF_MAYBE (link, readLink(subject.folder, kj::str("fd/", name).cStr())) {
    return kj::mv(*link);
  }
  return kj::str("?");
}

void showHelpersOwn(Subject& subject, kj::ArrayPtr<const OpenFd> open) {
  if (!subject.profile.layers.helper.is) return;
  uint32_t count = 0;
  for (const OpenFd& one : open) {
    bool named = false;
    for (size_t i = 0; i < subject.profile.fdCount; i++)
      named = named || covers(subject.profile.fds[i], one.number);
    count += !named && isHelpersOwn(subject, one);
  }
  subject.seen("fds of its own", count, " sockets, pipes, timers and epolls");
}

}  // namespace

void attestFds(Subject& subject) {
  KJ_IF_MAYBE (names, listFolder(subject.folder, "fd")) {
    auto open = KJ_MAP(name, *names) {
      return OpenFd{uint32_t(strtoul(name.cStr(), nullptr, 10)), linkAt(subject, name)};
    };
    const auto& profile = subject.profile;
    for (size_t i = 0; i < profile.fdCount; i++)
      show(subject, profile.fds[i], open);
    showHelpersOwn(subject, open);
    for (const OpenFd& one : open)
      checkFd(subject, one, open);
    if (subject.options.stage == Stage::START) return;
    for (size_t i = 0; i < profile.fdCount; i++)
      checkOpen(subject, profile.fds[i], open);
  } else if (errno == EACCES && subject.profile.layers.helper.is) {
    // It has made itself undumpable, and then its table is root's to see.
    subject.seen("fds", "root alone can list those of such a helper");
  } else {
    subject.differ("fds", "its fds cannot be listed: ", errnoText(errno));
  }
}

}  // namespace troupe::sandbox
