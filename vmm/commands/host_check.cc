#include "vmm/commands/host_check.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/exception.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker_profile.h"
#include "sandbox/limits/cgroup_ground.h"
#include "sandbox/profile.h"
#include "vmm/actors/programs.h"
#include "vmm/files/run_folder.h"
#include "vmm/words/quote.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace troupe {

namespace {

using State = HostFinding::State;

constexpr long LANDLOCK_VERSION_FLAG = 1;  // LANDLOCK_CREATE_RULESET_VERSION

HostFinding present(kj::StringPtr name, kj::StringPtr detail, kj::StringPtr see) {
  return {kj::str(name), State::PRESENT, kj::str(detail), kj::str(see), kj::str()};
}

HostFinding lacking(kj::StringPtr name, State state, kj::StringPtr detail, kj::StringPtr see,
                    kj::StringPtr mend) {
  return {kj::str(name), state, kj::str(detail), kj::str(see), kj::str(mend)};
}

HostFinding checkKvm() {
  constexpr kj::StringPtr SEE = "ls -l /dev/kvm; lsmod | grep kvm"_kj;
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    return present("KVM", "/dev/kvm can be opened", SEE);
  }
  int error = errno;
  if (error == EACCES || error == EPERM) {
    return lacking("KVM", State::MISSING, "you may not open /dev/kvm", "ls -l /dev/kvm; id",
                   "sudo usermod -aG kvm \"$USER\", then log in again");
  }
  return lacking("KVM", State::MISSING, kj::str("/dev/kvm: ", errnoText(error)), SEE,
                 "sudo modprobe kvm_intel || sudo modprobe kvm_amd; if neither does, turn on "
                 "virtualization in the firmware");
}

// The answer of `action`, run in a child that ends afterwards: 0 or an errno.
template <typename Action>
int tryInChild(Action&& action) {
  pid_t pid = fork();
  KJ_REQUIRE(pid >= 0, "cannot fork", errno);
  if (pid == 0) _exit(action() == 0 ? 0 : errno & 0x7f);
  int status = 0;
  KJ_SYSCALL(waitpid(pid, &status, 0));
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

HostFinding checkNamespaces() {
  constexpr kj::StringPtr NAME = "user namespaces"_kj;
  constexpr kj::StringPtr SEE =
      "sysctl user.max_user_namespaces kernel.unprivileged_userns_clone; unshare -Ur true"_kj;
  int error = tryInChild([]() {
    return unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC |
                   CLONE_NEWUTS | CLONE_NEWCGROUP);
  });
  if (error == 0) return present(NAME, "all seven namespaces can be made", SEE);
  kj::StringPtr mend = error == ENOSPC
                           ? "sudo sysctl user.max_user_namespaces=10000"_kj
                           : "sudo sysctl kernel.unprivileged_userns_clone=1; a chrooted process "
                             "cannot make any"_kj;
  return lacking(NAME, State::MISSING, errnoText(error), SEE, mend);
}

HostFinding checkSeccomp() {
  constexpr kj::StringPtr SEE = "cat /proc/sys/kernel/seccomp/actions_avail"_kj;
  uint32_t action = SECCOMP_RET_KILL_PROCESS;
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0) {
    return present("seccomp", "filters can kill a process", SEE);
  }
  return lacking("seccomp", State::MISSING, errnoText(errno), SEE,
                 "boot a kernel with CONFIG_SECCOMP_FILTER");
}

HostFinding checkLandlock() {
  constexpr kj::StringPtr SEE = "cat /sys/kernel/security/lsm"_kj;
  long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_VERSION_FLAG);
  if (abi > 0) return present("landlock", kj::str("ABI ", abi), SEE);
  kj::StringPtr mend = errno == EOPNOTSUPP
                           ? "boot with lsm=landlock,… on the kernel's command line"_kj
                           : "boot a kernel from 5.13 on with CONFIG_SECURITY_LANDLOCK"_kj;
  return lacking("landlock", State::MISSING,
                 kj::str("profiles require it, and the kernel says ", errnoText(errno)), SEE, mend);
}

HostFinding checkCgroups() {
  constexpr kj::StringPtr NAME = "control groups"_kj;
  uint32_t wanted = 0;
  for (auto controller : sandbox::CONTROLLERS)
    wanted |= sandbox::setOf(controller);
  auto found = sandbox::findCgroupGround(wanted);
  KJ_IF_MAYBE (ground, found.tryGet<sandbox::CgroupGround>()) {
    auto can = kj::str("actors can have limits (", sandbox::namesOf(ground->controllers),
                       ") below ", ground->folder());
    if (ground->controllers == wanted) {
      return present(NAME, can, kj::str("cat ", ground->folder(), "/cgroup.controllers"));
    }
    auto shortage = sandbox::shortageOf(*ground, wanted);
    return lacking(NAME, State::REDUCED, kj::str(can, "; ", shortage.reason), shortage.see,
                   shortage.mend);
  }
  auto& shortage = found.get<sandbox::CgroupShortage>();
  return lacking(NAME, State::REDUCED,
                 kj::str("actors have no limits of their own on memory, processes, CPU and disks: ",
                         shortage.reason),
                 shortage.see, shortage.mend);
}

HostFinding checkPasst() {
  constexpr kj::StringPtr NAME = "passt"_kj, SEE = "ls -l /usr/bin/passt"_kj;
  if (access("/usr/bin/passt", X_OK) == 0) return present(NAME, "--net user can be used", SEE);
  return lacking(NAME, State::REDUCED,
                 kj::str("--net user cannot be used: /usr/bin/passt: ", errnoText(errno)), SEE,
                 "sudo apt install passt");
}

HostFinding checkTaps() {
  constexpr kj::StringPtr NAME = "taps"_kj, SEE = "ls -l /dev/net/tun"_kj;
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd >= 0) {
    close(fd);
    return present(NAME, "--net tap=NAME can be used, with a tap that is yours", SEE);
  }
  int error = errno;
  return lacking(
      NAME, State::REDUCED,
      kj::str("--net tap=NAME cannot be used: /dev/net/tun: ", errnoText(error)), SEE,
      error == EACCES || error == EPERM ? "sudo chmod 666 /dev/net/tun" : "sudo modprobe tun");
}

HostFinding checkKernel() {
  utsname name;
  KJ_SYSCALL(uname(&name));
  uint32_t major = 0;
  uint32_t minor = 0;
  sscanf(name.release, "%u.%u", &major, &minor);
  auto detail = kj::str("Linux ", escape(kj::StringPtr(name.release)));
  bool enough = major > 6 || (major == 6 && minor >= 1);
  if (enough) return present("kernel", detail, "uname -r");
  return lacking("kernel", State::MISSING,
                 kj::str(detail, " is older than 6.1, which profiles ask for"), "uname -r",
                 "sudo apt install linux-image-amd64");
}

// Each feature by using it, since distributions take features back and forth.
HostFinding checkPidFd() {
  int fd = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  if (fd >= 0) close(fd);
  if (fd >= 0) return present("pidfd", "a process can be held by an fd", "man 2 pidfd_open");
  return lacking("pidfd", State::MISSING, errnoText(errno), "uname -r",
                 "boot a kernel from 5.3 on");
}

HostFinding checkMdwe() {
  int error = tryInChild([]() { return prctl(PR_SET_MDWE, 1, 0, 0, 0); });
  if (error == 0) return present("MDWE", "memory cannot turn executable", "uname -r");
  return lacking("MDWE", State::REDUCED, "no deny-write-execute memory: seccomp alone forbids it",
                 "uname -r", "boot a kernel from 6.3 on");
}

HostFinding checkExecSeal() {
  int fd = memfd_create("doctor", MFD_CLOEXEC | MFD_EXEC | MFD_ALLOW_SEALING);
  if (fd >= 0) {
    close(fd);
    return present("memfd seals", "with F_SEAL_EXEC", "uname -r");
  }
  return lacking("memfd seals", State::REDUCED, "no F_SEAL_EXEC", "uname -r",
                 "boot a kernel from 6.3 on");
}

HostFinding checkIoUring() {
  constexpr kj::StringPtr SEE = "sysctl kernel.io_uring_disabled"_kj;
  char parameters[256] = {};
  int fd = static_cast<int>(syscall(SYS_io_uring_setup, 4, parameters));
  if (fd >= 0) {
    close(fd);
    return present("io_uring", "rings can be made", SEE);
  }
  return lacking("io_uring", State::REDUCED,
                 kj::str(errnoText(errno), ": no disk can be used but one in memory"), SEE,
                 "sudo sysctl kernel.io_uring_disabled=0");
}

// How many fds some actor's profile asks for; no child may have more than its parent's hard limit.
HostFinding checkOpenFiles() {
  constexpr kj::StringPtr SEE = "ulimit -Hn"_kj;
  // One more than it may use itself is where it is executed from.
  uint64_t needed = sandbox::executableFd(BROKER_PROFILE) + 1;
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_max >= needed) {
    return present("open files", kj::str("the broker may have its ", needed), SEE);
  }
  return lacking("open files", State::MISSING,
                 kj::str("at most ", limit.rlim_max, "; the broker needs ", needed), SEE,
                 "raise \"hard nofile\" in /etc/security/limits.conf, then log in again");
}

HostFinding checkRunFolder() {
  kj::String folder;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { folder = runFolder(); })) {
    auto text = exception->getDescription();
    KJ_IF_MAYBE (end, text.findFirst('\n')) {
      auto first = kj::heapString(text.begin(), *end);
      return lacking("run-time folder", State::MISSING, first, "echo \"$XDG_RUNTIME_DIR\"",
                     "set XDG_RUNTIME_DIR to a folder of your own");
    }
    return lacking("run-time folder", State::MISSING, text, "echo \"$XDG_RUNTIME_DIR\"",
                   "set XDG_RUNTIME_DIR to a folder of your own");
  }
  return present("run-time folder", folder, kj::str("ls -ld ", folder));
}

HostFinding checkPrograms() {
  constexpr kj::StringPtr SEE =
      "ls -l \"$(dirname \"$(readlink -f \"$(command -v troupe)\")\")\""_kj;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([]() { openPrograms(); })) {
    (void)exception;
    return lacking("programs", State::MISSING, "not all actors' programs lie beside troupe", SEE,
                   "install troupe, troupe-broker, troupe-devices and troupe-front in one folder");
  }
  return present("programs", "all actors' programs lie beside troupe", SEE);
}

}  // namespace

kj::Array<HostFinding> checkHost() {
  return kj::arr(checkKvm(), checkNamespaces(), checkSeccomp(), checkLandlock(), checkCgroups(),
                 checkKernel(), checkPidFd(), checkMdwe(), checkExecSeal(), checkIoUring(),
                 checkOpenFiles(), checkRunFolder(), checkPrograms(), checkPasst(), checkTaps());
}

}  // namespace troupe
