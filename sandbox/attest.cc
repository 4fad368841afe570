#include "sandbox/attest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/errno_text.h"
#include "sandbox/jail_plan.h"

namespace troupe::sandbox {
namespace {

constexpr const char* NAMESPACE_NAMES[NAMESPACE_COUNT] = {"user", "pid", "net",   "mnt",
                                                          "ipc",  "uts", "cgroup"};

struct LimitName {
  int resource;
  const char* name;
  const char* inProc;
};

constexpr LimitName LIMIT_NAMES[] = {
    {RLIMIT_AS, "AS", "Max address space"},      {RLIMIT_CORE, "CORE", "Max core file size"},
    {RLIMIT_CPU, "CPU", "Max cpu time"},         {RLIMIT_DATA, "DATA", "Max data size"},
    {RLIMIT_FSIZE, "FSIZE", "Max file size"},    {RLIMIT_MEMLOCK, "MEMLOCK", "Max locked memory"},
    {RLIMIT_NOFILE, "NOFILE", "Max open files"}, {RLIMIT_NPROC, "NPROC", "Max processes"},
    {RLIMIT_STACK, "STACK", "Max stack size"},
};

// A process that has more threads or fds than this is not one of ours, and is not read to the end.
constexpr size_t MAX_ENTRIES = 4096;

kj::Maybe<kj::AutoCloseFd> openAt(int folder, const char* path, int flags) {
  int fd = openat(folder, path, flags | O_CLOEXEC);
  if (fd < 0) return nullptr;
  return kj::AutoCloseFd(fd);
}

kj::Maybe<kj::String> readAll(int folder, const char* path) {
  KJ_IF_MAYBE (file, openAt(folder, path, O_RDONLY)) {
    // Larger than any file of /proc that is read here; what is beyond is not looked at.
    char buffer[16384];
    size_t size = 0;
    while (size < sizeof(buffer)) {
      ssize_t n = read(*file, buffer + size, sizeof(buffer) - size);
      if (n < 0) return nullptr;
      if (n == 0) break;
      size += n;
    }
    return kj::heapString(buffer, size);
  }
  return nullptr;
}

kj::Maybe<kj::String> readLink(int folder, const char* path) {
  char buffer[512];
  ssize_t n = readlinkat(folder, path, buffer, sizeof(buffer));
  if (n < 0) return nullptr;
  return kj::heapString(buffer, n);
}

// Names in a folder, "." and ".." aside; none when it cannot be read.
kj::Maybe<kj::Array<kj::String>> list(int folder, const char* path) {
  KJ_IF_MAYBE (dir, openAt(folder, path, O_RDONLY | O_DIRECTORY)) {
    kj::Vector<kj::String> names;
    alignas(dirent64) char buffer[8192];
    for (;;) {
      ssize_t n = getdents64(*dir, buffer, sizeof(buffer));
      if (n < 0) return nullptr;
      for (ssize_t at = 0; at < n;) {
        auto entry = reinterpret_cast<const dirent64*>(buffer + at);
        at += entry->d_reclen;
        kj::StringPtr name = entry->d_name;
        if (name != "." && name != "..") names.add(kj::heapString(name));
      }
      if (n == 0 || names.size() >= MAX_ENTRIES) return names.releaseAsArray();
    }
  }
  return nullptr;
}

// The value of "Key:\tvalue" in /proc/PID/status.
kj::String field(kj::StringPtr status, kj::StringPtr key) {
  auto wanted = kj::str("\n", key, ":");
  const char* found = strstr(status.cStr(), wanted.cStr());
  if (found == nullptr) return nullptr;
  const char* begin = found + wanted.size();
  while (*begin == '\t' || *begin == ' ')
    begin++;
  const char* end = strchrnul(begin, '\n');
  while (end > begin && end[-1] == ' ')
    end--;
  return kj::heapString(begin, end - begin);
}

NamespaceIds namespacesAt(int folder) {
  NamespaceIds ids = {};
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    // "user:[4026531837]"; 0 when it cannot be read.
    KJ_IF_MAYBE (link, readLink(folder, kj::str("ns/", NAMESPACE_NAMES[i]).cStr())) {
      const char* bracket = strchr(link->cStr(), '[');
      if (bracket != nullptr) ids.inodes[i] = strtoull(bracket + 1, nullptr, 10);
    }
  }
  return ids;
}

class Inspection {
 public:
  Inspection(const Profile& profile, pid_t pid, int folder, const AttestOptions& options)
      : profile(profile), pid(pid), folder(folder), options(options) {}

  Attestation run() {
    HostView host = hostOf(options);
    checkThreads(host.filters);
    checkNamespaces(host.namespaces);
    checkFds();
    checkRoot();
    checkLimits();
    return {differences.releaseAsArray(), namespaces};
  }

 private:
  static HostView hostOf(const AttestOptions& options) {
    KJ_IF_MAYBE (host, options.host) return *host;
    return viewHost();
  }

  template <typename... Parts>
  void differ(Parts&&... parts) {
    differences.add(kj::str(kj::fwd<Parts>(parts)...));
  }

  // Filters, privileges and capabilities belong to threads.
  void checkThreads(int inheritedFilters) {
    KJ_IF_MAYBE (threads, list(folder, "task")) {
      for (const kj::String& thread : *threads) {
        // What /proc/PID/status says of threads, it says of the main one.
        bool main = thread == kj::str(pid);
        auto path = main ? kj::str("status") : kj::str("task/", thread, "/status");
        KJ_IF_MAYBE (status, readAll(folder, path.cStr())) {
          auto who = main ? kj::str("it") : kj::str("its thread ", field(*status, "Name"));
          checkThread(who, *status, main, inheritedFilters);
        }
      }
      if (threads->size() == 0) differ("it has ended");
    } else {
      differ("its threads cannot be listed: ", errnoText(errno));
    }
  }

  void checkThread(kj::StringPtr who, kj::StringPtr status, bool main, int inheritedFilters) {
    auto mode = field(status, "Seccomp");
    if (mode != "2") {
      differ(who, " has seccomp mode ", mode, "; a jailed actor has mode 2 (filter)");
    } else {
      checkFilters(who, atoi(field(status, "Seccomp_filters").cStr()) - inheritedFilters, main);
    }
    auto noNewPrivileges = field(status, "NoNewPrivs");
    if (noNewPrivileges != "1") {
      differ(who, " may gain privileges by exec: NoNewPrivs is ", noNewPrivileges, ", not 1");
    }
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      auto value = field(status, set);
      if (value != "0000000000000000") {
        differ(who, " has capabilities: ", set, " is ", value, ", not 0");
      }
    }
    checkIds(who, status);
  }

  bool has(kj::StringPtr stage) const {
    for (size_t i = 0; i < profile.filterCount; i++) {
      if (stage == profile.filters[i].stage) return true;
    }
    return false;
  }

  void checkFilters(kj::StringPtr who, int filters, bool main) {
    int least = 1;
    if (options.stage != Stage::START && has("ready")) least = 2;
    int most = least;
    // An actor may go to `run` with or without a stop at `ready`.
    if (options.stage == Stage::RUN && has("run")) most = 3;
    // A thread that took its own filter after the process's has both.
    if (!main) most++;
    if (filters < least || filters > most) {
      differ(who, " has ", filters, " system call filters; its profile makes that ",
             least == most ? kj::str(least) : kj::str(least, " to ", most));
    }
  }

  void checkIds(kj::StringPtr who, kj::StringPtr status) {
    bool asRoot = geteuid() == 0;
    uint32_t uid = asRoot ? FIRST_HOST_ID + pid : geteuid();
    uint32_t gid = asRoot ? FIRST_HOST_ID + pid : getegid();
    auto expect = [&](kj::StringPtr key, uint32_t id) {
      auto value = field(status, key);
      if (value != kj::str(id, '\t', id, '\t', id, '\t', id)) {
        for (char& c : value) {
          if (c == '\t') c = ' ';
        }
        differ(who, " has ", key, " ", value, " on the host, not ", id);
      }
    };
    expect("Uid", uid);
    expect("Gid", gid);
    if (asRoot && field(status, "Groups").size() > 0) {
      differ(who, " is still in groups ", field(status, "Groups"));
    }
  }

  void checkNamespaces(const NamespaceIds& host) {
    namespaces = namespacesAt(folder);
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
      uint64_t inode = namespaces.inodes[i];
      if (inode == 0) {
        differ("its ", NAMESPACE_NAMES[i], " namespace cannot be read");
        continue;
      }
      if (inode == host.inodes[i]) {
        differ("its ", NAMESPACE_NAMES[i], " namespace is the host's (", inode, ")");
      }
      for (const NamespaceIds& sibling : options.siblings) {
        if (inode == sibling.inodes[i]) {
          differ("its ", NAMESPACE_NAMES[i], " namespace is that of another actor (", inode, ")");
        }
      }
    }
  }

  void checkFds() {
    KJ_IF_MAYBE (names, list(folder, "fd")) {
      kj::Vector<uint32_t> open;
      for (const kj::String& name : *names) {
        uint32_t number = strtoul(name.cStr(), nullptr, 10);
        open.add(number);
        checkFd(number, name);
      }
      if (options.stage == Stage::START) return;
      for (size_t i = 0; i < profile.fdCount; i++)
        checkOpen(profile.fds[i], open);
    } else {
      differ("its fds cannot be listed: ", errnoText(errno));
    }
  }

  void checkFd(uint32_t number, kj::StringPtr name) {
    auto link = orQuestionMark(readLink(folder, kj::str("fd/", name).cStr()));
    bool known = false;
    kj::StringPtr expected;
    kj::StringPtr expectedName;
    for (size_t i = 0; i < profile.fdCount; i++) {
      const ProfileFd& fd = profile.fds[i];
      if (number < fd.number || number >= fd.number + fd.count) continue;
      if (fd.closed && options.stage != Stage::START) continue;
      known = true;
      expected = fd.kind;
      expectedName = fd.name;
      // In `start` a number may hold a placeholder, or what its next user puts there.
      if (options.stage == Stage::START && !fd.handed) return;
      if (matches(fd.kind, link, number)) return;
    }
    if (known) {
      differ("its fd ", number, " is ", link, "; the profile's \"", expectedName, "\" is of kind ",
             expected);
    } else {
      differ("its fd ", number, " (", link, ") is not in its profile");
    }
  }

  bool matches(kj::StringPtr kind, kj::StringPtr link, uint32_t number) const;

  void checkOpen(const ProfileFd& fd, kj::ArrayPtr<const uint32_t> open) {
    if (fd.optional || fd.closed) return;
    for (uint32_t number = fd.number; number < fd.number + fd.count; number++) {
      bool found = false;
      for (uint32_t one : open)
        found |= one == number;
      if (!found) differ("its fd \"", fd.name, "\" (", number, ") is not open");
    }
  }

  // The one mount is a tmpfs at the root, mounted and made read-only, and nothing is in it.
  void checkRoot() {
    KJ_IF_MAYBE (names, list(folder, "root")) {
      if (names->size() > 0) {
        differ("its root is not empty: it has ", names->size(), " entries, \"", (*names)[0],
               "\" among them");
      }
    } else {
      differ("its root cannot be read: ", errnoText(errno));
    }
    KJ_IF_MAYBE (mounts, readAll(folder, "mountinfo")) {
      size_t lines = 0;
      for (char c : *mounts)
        lines += c == '\n';
      if (lines != 1) {
        differ("it sees ", lines, " mounts; a jailed actor has one, its empty root");
      } else {
        checkRootMount(*mounts);
      }
    } else {
      differ("its mounts cannot be read: ", errnoText(errno));
    }
  }

  // "36 35 0:30 / / ro,nosuid,… - tmpfs root ro,…"
  void checkRootMount(kj::StringPtr line) {
    const char* separator = strstr(line.cStr(), " - ");
    bool tmpfs = separator != nullptr && strncmp(separator, " - tmpfs ", 9) == 0;
    if (!tmpfs || strstr(line.cStr(), " / / ") == nullptr) {
      differ("its root is no tmpfs: ", line.slice(0, line.size() - 1));
      return;
    }
    const char* options = strstr(line.cStr(), " / / ") + 5;
    if (strncmp(options, "ro,", 3) != 0 && strncmp(options, "ro ", 3) != 0) {
      differ("its root is writable");
    }
  }

  void checkLimits() {
    KJ_IF_MAYBE (limits, readAll(folder, "limits")) {
      bool hasCore = false, hasFiles = false;
      for (size_t i = 0; i < profile.limitCount; i++) {
        checkLimit(*limits, profile.limits[i].resource, profile.limits[i].value);
        hasCore |= profile.limits[i].resource == RLIMIT_CORE;
        hasFiles |= profile.limits[i].resource == RLIMIT_NOFILE;
      }
      if (!hasCore) checkLimit(*limits, RLIMIT_CORE, 0);
      if (!hasFiles) checkLimit(*limits, RLIMIT_NOFILE, defaultFileLimit(profile));
    } else {
      differ("its limits cannot be read: ", errnoText(errno));
    }
  }

  // "Max open files            1024                 4096                 files"
  void checkLimit(kj::StringPtr limits, int resource, uint64_t value) {
    for (const LimitName& known : LIMIT_NAMES) {
      if (known.resource != resource) continue;
      const char* line = strstr(limits.cStr(), kj::str("\n", known.inProc, " ").cStr());
      if (line == nullptr) break;
      const char* soft = line + 1 + strlen(known.inProc);
      char* hard;
      if (parseLimit(soft, &hard) <= value && parseLimit(hard, &hard) <= value) return;
      while (*soft == ' ')
        soft++;
      differ("its limit ", known.name, " is ", kj::heapString(soft, strcspn(soft, " ")),
             " or may be raised; its profile says ", value);
      return;
    }
    differ("its limit ", resource, " is unknown to this kernel");
  }

  static uint64_t parseLimit(const char* text, char** end) {
    while (*text == ' ')
      text++;
    if (strncmp(text, "unlimited", 9) == 0) {
      *end = const_cast<char*>(text) + 9;
      return ~uint64_t{0};
    }
    return strtoull(text, end, 10);
  }

  static kj::String orQuestionMark(kj::Maybe<kj::String> text) {
    KJ_IF_MAYBE (value, text) {
      return kj::mv(*value);
    }
    return kj::str("?");
  }

  const Profile& profile;
  pid_t pid;
  int folder;
  const AttestOptions& options;
  kj::Vector<kj::String> differences;
  NamespaceIds namespaces = {};
};

bool Inspection::matches(kj::StringPtr kind, kj::StringPtr link, uint32_t number) const {
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
  if (fstatat(folder, kj::str("fd/", number).cStr(), &info, 0) < 0) return false;
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

}  // namespace

HostView viewHost() {
  auto own = KJ_REQUIRE_NONNULL(openAt(AT_FDCWD, "/proc/self", O_PATH | O_DIRECTORY),
                                "/proc is not mounted");
  auto status = KJ_REQUIRE_NONNULL(readAll(own, "status"));
  return {namespacesAt(own), atoi(field(status, "Seccomp_filters").cStr())};
}

Attestation attest(const Profile& profile, pid_t pid, const AttestOptions& options) {
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, kj::str("/proc/", pid).cStr(), O_PATH | O_DIRECTORY)) {
    return Inspection(profile, pid, *folder, options).run();
  }
  return {kj::arr(kj::str("it has ended")), {}};
}

void requireAttested(kj::StringPtr name, const Attestation& attestation) {
  if (attestation.differences.size() == 0) return;
  kj::Vector<kj::String> numbered;
  for (const kj::String& difference : attestation.differences) {
    numbered.add(kj::str("\n  ", numbered.size() + 1, ". ", difference));
  }
  KJ_FAIL_REQUIRE(kj::str(
      "TRP-jail-030: the jail of ", name,
      " is not what its profile says, so the VM is not started:", kj::strArray(numbered, "")));
}

}  // namespace troupe::sandbox
