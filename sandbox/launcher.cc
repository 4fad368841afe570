#include "sandbox/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/actor_setup.h"
#include "sandbox/child_process.h"
#include "sandbox/errno_text.h"
#include "sandbox/exit_report.h"
#include "sandbox/landlock_rules.h"
#include "sandbox/limits/clone_into.h"
#include "sandbox/setup_message.h"

namespace troupe::sandbox {
namespace {

// The child calls nothing but the kernel: its frames fit one page, the rest is room.
constexpr size_t STACK_BYTES = 64 << 10;

class Stack {
 public:
  Stack() {
    base = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) KJ_FAIL_SYSCALL("mmap", errno, "a child's first stack");
  }
  ~Stack() noexcept(false) {
    KJ_SYSCALL(munmap(base, STACK_BYTES)) {
      break;
    }
  }
  KJ_DISALLOW_COPY(Stack);
  void* bottom() const { return base; }
  void* top() const { return static_cast<kj::byte*>(base) + STACK_BYTES; }

 private:
  void* base;
};

struct Prepared final: public LaunchMemory {
  Stack stack;
  kj::Array<sock_filter> altered;  // with LaunchFaults::ALTERED_FILTER
  kj::Array<PlannedFd> fds;
  kj::Vector<PlannedLimit> limits;
  kj::Vector<kj::String> texts;
  kj::Vector<PlannedRootEntry> root;
  kj::Vector<const char*> arguments;
  const char* environment[1] = {};

  // Vectors of strings move them, but not their characters.
  const char* keep(kj::StringPtr text) { return texts.add(kj::heapString(text)).cStr(); }
};

// The folder `path` and those above it, each once.
void planFolder(kj::StringPtr path, Prepared& memory) {
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    planFolder(kj::heapString(path.slice(0, *slash)), memory);
  }
  for (auto& one : memory.root) {
    if (one.kind == PlannedRootEntry::FOLDER && path == one.at) return;
  }
  memory.root.add(PlannedRootEntry{PlannedRootEntry::FOLDER, memory.keep(path), nullptr});
}

// What a helper's root holds, and the folders it lies in.
void planRoot(const Profile& profile, kj::StringPtr name, Prepared& memory) {
  for (size_t i = 0; i < profile.layers.helper.rootCount; i++) {
    const ProfileRootEntry& entry = profile.layers.helper.root[i];
    kj::StringPtr path = entry.path + 1;
    if (entry.kind == ProfileRootEntry::FOLDER) {
      planFolder(path, memory);
      continue;
    }
    bool isFile = entry.kind == ProfileRootEntry::FILE;
    struct stat info;
    if (isFile && (stat(entry.path, &info) < 0 || !S_ISREG(info.st_mode))) {
      if (entry.optional) continue;
      KJ_FAIL_REQUIRE(kj::str("TRP-jail-013: ", name, " needs the file ", entry.path,
                              ", as its profile ", profile.source,
                              " says, and this host has none; `ls -l ", entry.path, "` shows it"));
    }
    KJ_IF_MAYBE (slash, path.findLast('/')) {
      planFolder(kj::heapString(path.slice(0, *slash)), memory);
    }
    memory.root.add(PlannedRootEntry{isFile ? PlannedRootEntry::FILE : PlannedRootEntry::LINK,
                                     memory.keep(path), isFile ? entry.path : entry.target});
  }
}

// What an actor is handed as memory cannot be executed, wherever it goes from there.
void requireSealed(const Profile& profile, kj::StringPtr name, kj::ArrayPtr<const HandedFd> fds) {
  constexpr int SEAL_EXECUTION = 0x20;  // F_SEAL_EXEC, Linux 6.3; Debian 12's headers are older
  for (const HandedFd& handed : fds) {
    for (size_t i = 0; i < profile.fdCount; i++) {
      if (handed.name != profile.fds[i].name || profile.fds[i].kind != "memfd"_kj) continue;
      int seals = fcntl(handed.fd, F_GET_SEALS);
      if (seals >= 0 && (seals & SEAL_EXECUTION) != 0) continue;
      KJ_FAIL_REQUIRE(kj::str("TRP-jail-012: ", name, " is handed \"", handed.name,
                              "\", memory that could be executed; its profile, ", profile.source,
                              ", says `executable_seals`"));
    }
  }
}

uint64_t changedSignals() {
  uint64_t changed = 0;
  for (int signal = 1; signal <= 64; signal++) {
    struct sigaction action;
    // Fails for the two signals glibc keeps for itself; their handlers must go as well.
    if (sigaction(signal, nullptr, &action) < 0 ? signal == 32 || signal == 33
                                                : action.sa_handler != SIG_DFL) {
      changed |= uint64_t{1} << (signal - 1);
    }
  }
  return changed & ~(uint64_t{1} << (SIGKILL - 1)) & ~(uint64_t{1} << (SIGSTOP - 1));
}

void planLimits(const Profile& profile, kj::Vector<PlannedLimit>& limits) {
  bool hasCore = false, hasFiles = false;
  for (size_t i = 0; i < profile.limitCount; i++) {
    limits.add(PlannedLimit{profile.limits[i].resource, profile.limits[i].value});
    hasCore |= profile.limits[i].resource == RLIMIT_CORE;
    hasFiles |= profile.limits[i].resource == RLIMIT_NOFILE;
  }
  if (!hasCore) limits.add(PlannedLimit{RLIMIT_CORE, 0});
  if (!hasFiles) limits.add(PlannedLimit{RLIMIT_NOFILE, fileLimit(profile)});
}

// A filter that refuses as much, but lets who is refused live on.
kj::Array<sock_filter> alteredCopy(const ProfileFilter& filter) {
  auto copy = kj::heapArray(filter.program, filter.length);
  for (sock_filter& step : copy) {
    if (step.code != (BPF_RET | BPF_K) || step.k != SECCOMP_RET_KILL_PROCESS) continue;
    step.k = SECCOMP_RET_ERRNO | EPERM;
    break;
  }
  return copy;
}

// Namespaces made by clone() itself, and those the child makes, in parallel to its siblings.
struct Namespaces {
  uint64_t cloned;
  uint64_t unshared;
};

Namespaces namespacesFor(uint64_t wanted, const LaunchFaults& faults) {
  constexpr struct {
    LaunchFaults::Layer layer;
    uint64_t flag;
  } ALL[] = {{LaunchFaults::USER_NAMESPACE, CLONE_NEWUSER},
             {LaunchFaults::PID_NAMESPACE, CLONE_NEWPID},
             {LaunchFaults::NET_NAMESPACE, CLONE_NEWNET},
             {LaunchFaults::MOUNT_NAMESPACE, CLONE_NEWNS},
             {LaunchFaults::IPC_NAMESPACE, CLONE_NEWIPC},
             {LaunchFaults::UTS_NAMESPACE, CLONE_NEWUTS},
             {LaunchFaults::CGROUP_NAMESPACE, CLONE_NEWCGROUP}};
  uint64_t flags = wanted;
  for (const auto& one : ALL) {
    if (faults.all(one.layer)) flags &= ~one.flag;
  }
  // These two take effect on the process itself only when it is made.
  uint64_t cloned = flags & (CLONE_NEWUSER | CLONE_NEWPID);
  return {cloned, flags & ~cloned};
}

// While it lives no signal is delivered to this thread, nor to a child it clones.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    KJ_SYSCALL(sigprocmask(SIG_SETMASK, &all, &before));
  }
  ~BlockedSignals() noexcept(false) { KJ_SYSCALL(sigprocmask(SIG_SETMASK, &before, nullptr)); }
  KJ_DISALLOW_COPY(BlockedSignals);

 private:
  sigset_t before;
};

kj::String readLine(kj::StringPtr path) {
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return kj::str("?");
  kj::AutoCloseFd file(fd);
  char text[64];
  ssize_t n = read(file, text, sizeof(text));
  while (n > 0 && text[n - 1] == '\n')
    n--;
  return kj::heapString(text, n < 0 ? 0 : n);
}

[[noreturn]] void failClone(kj::StringPtr name, bool jailed, int error) {
  if (jailed && (error == ENOSPC || error == EPERM || error == EUSERS || error == EINVAL)) {
    KJ_FAIL_REQUIRE(kj::str(
        "TRP-jail-001: ", name,
        " cannot be jailed: this machine refuses a user namespace: ", errnoText(error),
        "; /proc/sys/user/max_user_namespaces is ", readLine("/proc/sys/user/max_user_namespaces"),
        "; `unshare -Ur true` shows it, `sysctl -w user.max_user_namespaces=10000` as root (and, "
        "where they exist, kernel.unprivileged_userns_clone=1 and "
        "kernel.apparmor_restrict_unprivileged_userns=0) mends it"));
  }
  KJ_FAIL_REQUIRE(kj::str("TRP-jail-006: the host makes no process for ", name, ": ",
                          errnoText(error), "; `ulimit -u` shows the limit on processes"));
}

[[noreturn]] void tooFewFiles(kj::StringPtr name, int needed) {
  KJ_FAIL_REQUIRE(kj::str("TRP-jail-005: ", name, " needs numbers of fds below ", needed,
                          ", more than this process may have; `ulimit -Hn` shows the limit"));
}

// `fd` where no fd of the child will be put: from `first` on, and not at `except`. The soft limit
// of this process, which need not suffice for the child's numbers, does not bind it.
kj::AutoCloseFd movedAside(kj::StringPtr name, int fd, int first, int except, const rlimit& files) {
  rlimit wide = {files.rlim_max, files.rlim_max};
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &wide));
  KJ_DEFER(KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &files)));
  int high = fcntl(fd, F_DUPFD_CLOEXEC, first);
  if (high == except) {
    kj::AutoCloseFd taken(high);
    high = fcntl(fd, F_DUPFD_CLOEXEC, except + 1);
  }
  KJ_REQUIRE(high >= 0,
             kj::str("TRP-jail-005: ", name, " cannot be started: this process can have ",
                     "no fd with a number from ", first, " on: ", errnoText(errno),
                     "; `ulimit -n` shows the limit"));
  return kj::AutoCloseFd(high);
}

// Writes /proc/PID/`file`; the errno, or 0.
int writeMap(int procFolder, const char* file, kj::StringPtr text) {
  int fd = openat(procFolder, file, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  kj::AutoCloseFd map(fd);
  return write(map, text.begin(), text.size()) < 0 ? errno : 0;
}

// Gives the child its ids. An ordinary user can map its own only, and must forbid setgroups for it.
void mapIds(kj::StringPtr name, pid_t pid, uint32_t hostUid, uint32_t hostGid, bool asRoot) {
  auto path = kj::str("/proc/", pid);
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_PATH | O_DIRECTORY | O_CLOEXEC), path);
  kj::AutoCloseFd folder(fd);
  auto need = [&](const char* file, kj::String text) {
    int error = writeMap(folder, file, text);
    KJ_REQUIRE(error == 0, kj::str("TRP-jail-007: ", name, " cannot get its ids: writing \"", text,
                                   "\" to ", path, "/", file, ": ", errnoText(error)));
  };
  if (!asRoot) need("setgroups", kj::str("deny"));
  need("gid_map", kj::str(INSIDE_ID, " ", hostGid, " 1"));
  need("uid_map", kj::str(INSIDE_ID, " ", hostUid, " 1"));
}

void letGo(JailPlan& plan) {
  __atomic_store_n(&plan.go, uint32_t(JailPlan::GO), __ATOMIC_RELEASE);
  syscall(SYS_futex, &plan.go, 1 /* FUTEX_WAKE */, 1, nullptr, nullptr, 0);
}

}  // namespace

Launcher::Launcher(kj::UnixEventPort& events, Jail jail, LaunchFaults faults,
                   kj::Maybe<const WatchRequest&> request)
    : events(events), jail(jail), faults(faults), reports(kj::refcounted<ExitReports>(events)) {
  int fd;
  KJ_SYSCALL(fd = syscall(SYS_pidfd_open, getpid(), 0));
  self = kj::AutoCloseFd(fd);
  // A parent may have left it ignored, and then nobody learns how a child ended.
  struct sigaction action;
  KJ_SYSCALL(sigaction(SIGCHLD, nullptr, &action));
  if (action.sa_handler == SIG_IGN) ::signal(SIGCHLD, SIG_DFL);
  KJ_IF_MAYBE (wanted, request) {
    if (jail == Jail::ON) watch = kj::heap<CallWatch>(*wanted);
  }
}

Launcher::~Launcher() noexcept(false) {}

const KernelLayers& Launcher::kernel() {
  if (faults.kernel != nullptr) return *faults.kernel;
  KJ_IF_MAYBE (known, seenKernel) {
    return *known;
  }
  return seenKernel.emplace(viewKernel());
}

LayerPlan Launcher::planJail(const Profile& profile, kj::StringPtr name) {
  auto plan = planLayers(profile, name, kernel());
  for (const kj::String& layer : plan.missing) {
    bool known = false;
    for (const kj::String& other : missing)
      known |= other == layer;
    if (!known) missing.add(kj::str(layer));
  }
  return plan;
}

kj::ArrayPtr<const kj::String> Launcher::missingLayers() const {
  return missing;
}

const Profile& Launcher::inForce(const Profile& profile) {
  KJ_IF_MAYBE (watcher, watch) {
    return (*watcher)->watched(profile);
  }
  return profile;
}

kj::Own<Child> Launcher::launch(const Profile& given, int executable, kj::StringPtr argv0,
                                kj::StringPtr name, kj::ArrayPtr<const HandedFd> fds,
                                kj::Maybe<capnp::AnyPointer::Reader> config, kj::Maybe<int> cgroup,
                                kj::ArrayPtr<const kj::String> arguments, Part part) {
  const Profile& profile = inForce(given);
  bool jailed = jail == Jail::ON;
  bool asRoot = geteuid() == 0;
  KJ_REQUIRE(profile.filterCount > 0 && kj::StringPtr(profile.filters[0].stage) == "start",
             "a profile begins with its start filter", profile.actor);
  auto numbered = numberFds(profile, name, fds);
  LayerPlan layers;
  if (jailed) layers = planJail(profile, name);
  if (layers.executableSeals) requireSealed(profile, name, fds);
  bool helper = profile.layers.helper.is;
  KJ_REQUIRE(helper || arguments.size() == 0, "only a helper has arguments", name);
  kj::AutoCloseFd setup;
  if (!helper) setup = makeSetup(profile, name, fds, config, jailed, layers, part);
  int programNumber = executableFd(profile);
  int firstFree = SETUP_FD + 1;
  for (const NumberedFd& fd : numbered)
    firstFree = kj::max(firstFree, fd.number + 1);

  auto memory = kj::heap<Prepared>();
  kj::Vector<PlannedFd> planned(numbered.size() + 2);
  for (const NumberedFd& fd : numbered)
    planned.add(PlannedFd{fd.fd, -1, fd.number});
  if (!helper) planned.add(PlannedFd{setup, -1, SETUP_FD});
  planned.add(PlannedFd{executable, -1, programNumber});
  memory->fds = planned.releaseAsArray();
  planLimits(profile, memory->limits);
  memory->arguments.add(memory->keep(argv0));
  for (const kj::String& argument : arguments)
    memory->arguments.add(memory->keep(argument));
  memory->arguments.add(nullptr);
  if (jailed) planRoot(profile, name, *memory);

  rlimit files;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &files));
  if (files.rlim_max <= rlim_t(programNumber)) tooFewFiles(name, programNumber + 1);

  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd status(ends[0]), lowStatusEnd(ends[1]);
  auto statusEnd = movedAside(name, lowStatusEnd, firstFree, programNumber, files);
  lowStatusEnd = nullptr;

  kj::AutoCloseFd landlock;
  if (jailed) {
    KJ_IF_MAYBE (rules, makeLandlockRules(layers, kernel().landlockAbi, name, executable)) {
      landlock = kj::mv(*rules);
    }
  }

  Namespaces namespaces = jailed ? namespacesFor(layers.namespaces, faults) : Namespaces{0, 0};
  JailPlan& plan = memory->plan;
  plan.jailed = jailed;
  plan.changeIds = asRoot;
  plan.faults = faults;
  plan.namespaces = namespaces.unshared;
  plan.capabilities = profile.layers.capabilities;
  plan.parentPidFd = self;
  KJ_SYSCALL(plan.dumpable = prctl(PR_GET_DUMPABLE));
  plan.landlockRules = landlock == nullptr ? -1 : landlock.get();
  if (signalsToReset == nullptr) signalsToReset = changedSignals();
  plan.signalsToReset = KJ_ASSERT_NONNULL(signalsToReset);
  plan.fds = memory->fds.begin();
  plan.fdCount = memory->fds.size();
  plan.firstFree = firstFree;
  plan.fileLimit[0] = files.rlim_cur > rlim_t(programNumber) ? 0 : programNumber + 1;
  plan.fileLimit[1] = files.rlim_max;
  plan.root = memory->root.begin();
  plan.rootCount = memory->root.size();
  plan.limits = memory->limits.begin();
  plan.limitCount = memory->limits.size();
  plan.filter.len = profile.filters[0].length;
  plan.filter.filter = const_cast<sock_filter*>(profile.filters[0].program);
  if (faults.all(LaunchFaults::ALTERED_FILTER)) {
    memory->altered = alteredCopy(profile.filters[0]);
    plan.filter.filter = memory->altered.begin();
  }
  plan.arguments = memory->arguments.begin();
  plan.environment = memory->environment;

  int pidFd = -1, error = 0;
  pid_t pid;
  {
    BlockedSignals blocked;
    KJ_IF_MAYBE (group, cgroup) {
      pid = cloneInto(*group, &enterJail, &plan, memory->stack.bottom(), STACK_BYTES,
                      CLONE_VM | namespaces.cloned, &pidFd);
    } else {
      pid = clone(&enterJail, memory->stack.top(),
                  CLONE_VM | CLONE_PIDFD | SIGCHLD | int(namespaces.cloned), &plan, &pidFd);
    }
    error = errno;
  }
  if (pid < 0) failClone(name, jailed, error);
  // Before the child may go on: it is seen from its first instruction.
  kj::Maybe<kj::Own<ExitReport>> report;
  if (jailed && !faults.all(LaunchFaults::EXIT_REPORT))
    report =
        kj::heap<ExitReport>(kj::addRef(*reports), profile, pid,
                             watch.map([](auto& one) -> CallWatch& { return *one; }), executable);
  auto child = watchChild(events, name, pid, kj::AutoCloseFd(pidFd), kj::mv(status), kj::mv(memory),
                          kj::mv(report));
  if (jailed) {
    plan.hostId = asRoot ? FIRST_HOST_ID + pid : geteuid();
    if (!faults.all(LaunchFaults::USER_NAMESPACE)) {
      bool ownId = !faults.all(LaunchFaults::OWN_ID);
      mapIds(name, pid, ownId ? plan.hostId : geteuid(), asRoot && ownId ? plan.hostId : getegid(),
             asRoot);
    }
    letGo(plan);
  }
  return child;
}

}  // namespace troupe::sandbox
