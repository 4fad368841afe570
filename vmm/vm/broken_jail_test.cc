#include <capnp/message.h>
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "sandbox/kernel_layers.h"
#include "vmm/files/run_folder.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/user_error.h"

// A whole VM with one layer of every jail left out does not start. Its guest would power off at
// once, so a start that is not refused shows as an end.
namespace troupe {

struct SoleVm {
  static LocalVm::Starter starter() { return LocalVm::Starter(); }
};
namespace {

using Fault = sandbox::LaunchFaults;

struct Refusal {
  ExitCode exit;
  std::string message;
};

// The configuration of a VM with one device of each kind, and starts of it.
class VmBench {
 public:
  VmBench() {
    static bool captured = (kj::UnixEventPort::captureChildExit(), true);
    KJ_ASSERT(captured);
    auto path = kj::str(getenv("TEST_TMPDIR"), "/disk");
    kj::AutoCloseFd disk(open(path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    KJ_SYSCALL(ftruncate(disk, 1 << 20));
    config.setName(kj::str("broken-jail-", getpid()));
    config.setKernel("guest/payload/payload.elf");
    config.setMemory("64M");
    config.setCmdline("end=poweroff");
    config.setSerial(kj::str("file=", getenv("TEST_TMPDIR"), "/serial"));
    config.initConsoles(1)[0].setWhere(kj::str("file=", getenv("TEST_TMPDIR"), "/console"));
    config.initDisks(1)[0].setPath(path);
  }

  // How the VM without these layers ends; POWERED_OFF and no message when nobody noticed.
  Refusal startWithout(uint32_t layers) { return start(Fault{layers}); }

  // The same on what is taken for the kernel of this machine. What the user is told goes to
  // `notes`.
  Refusal startOn(const sandbox::KernelLayers& kernel, std::vector<std::string>& notes) {
    Fault faults;
    faults.kernel = &kernel;
    return start(faults, &notes);
  }

  Refusal start(const Fault& faults, std::vector<std::string>* notes = nullptr) {
    Refusal refusal = {ExitCode::POWERED_OFF, ""};
    {
      auto io = kj::setupAsyncIo();
      KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                     auto plan = planVm(config);
                     auto files = openVmFiles(plan);
                     Stage::Choices choices;
                     choices.jail = plan.jail;
                     choices.programs = "bin"_kj;
                     choices.faults = faults;
                     Stage stage(io, choices);
                     LocalVm vm(SoleVm::starter(), io, stage, {kj::mv(plan), kj::mv(files), {}});
                     if (notes != nullptr) {
                       for (auto& note : vm.notes())
                         notes->push_back(note.cStr());
                     }
                     refusal.exit = vm.onEnd().wait(io.waitScope).exit;
                   })) {
        auto status = toStatus(*exception);
        refusal = {exitCodeOf(status), std::string(status.message())};
      }
    }
    expectNothingLeft();
    return refusal;
  }

  void expectRefused(uint32_t layers, const std::vector<std::string>& words) {
    Refusal refusal = VmBench().startWithout(layers);
    EXPECT_EQ(ExitCode::JAIL, refusal.exit) << refusal.message;
    // Of whichever process was looked at first.
    EXPECT_EQ(0u, refusal.message.find("TRP-jail-030: the jail of ")) << refusal.message;
    EXPECT_NE(std::string::npos, refusal.message.find(" is not what its profile says, so the VM is "
                                                      "not started:\n  1. "))
        << refusal.message;
    for (auto& word : words)
      EXPECT_NE(std::string::npos, refusal.message.find(word)) << word << "\n" << refusal.message;
  }

 private:
  void expectNothingLeft() {
    EXPECT_EQ(-1, waitpid(-1, nullptr, WNOHANG));
    EXPECT_EQ(ECHILD, errno);
    for (const char* suffix : {".sock", ".lock"}) {
      auto path = kj::str(runFolder(), "/", config.asReader().getName(), suffix);
      EXPECT_EQ(-1, access(path.cStr(), F_OK)) << path.cStr();
    }
  }

  capnp::MallocMessageBuilder message;
  VmConfig::Builder config = message.initRoot<VmConfig>();
};

TEST(BrokenJail, AWholeOneStarts) {
  Refusal refusal = VmBench().startWithout(0);
  EXPECT_EQ(ExitCode::POWERED_OFF, refusal.exit) << refusal.message;
}

TEST(BrokenJail, WithoutUserNamespace) {
  if (geteuid() != 0) GTEST_SKIP() << "nothing else of a jail can be made then";
  VmBench().expectRefused(Fault::USER_NAMESPACE, {"its user namespace is the host's ("});
}

TEST(BrokenJail, WithoutPidNamespace) {
  VmBench().expectRefused(Fault::PID_NAMESPACE, {"its pid namespace is the host's ("});
}

TEST(BrokenJail, WithoutNetNamespace) {
  VmBench().expectRefused(Fault::NET_NAMESPACE, {"its net namespace is the host's ("});
}

TEST(BrokenJail, WithoutMountNamespace) {
  VmBench().expectRefused(Fault::MOUNT_NAMESPACE, {"its mnt namespace is the host's (",
                                                   "its root is not empty", "it sees "});
}

TEST(BrokenJail, WithoutIpcNamespace) {
  VmBench().expectRefused(Fault::IPC_NAMESPACE, {"its ipc namespace is the host's ("});
}

TEST(BrokenJail, WithoutUtsNamespace) {
  VmBench().expectRefused(Fault::UTS_NAMESPACE, {"its uts namespace is the host's ("});
}

TEST(BrokenJail, WithoutCgroupNamespace) {
  VmBench().expectRefused(Fault::CGROUP_NAMESPACE, {"its cgroup namespace is the host's ("});
}

TEST(BrokenJail, WithFilesInItsRoot) {
  VmBench().expectRefused(Fault::EMPTY_ROOT, {"its root is not empty: it has "});
}

TEST(BrokenJail, WithAWritableRoot) {
  VmBench().expectRefused(Fault::READ_ONLY_ROOT, {"its root is writable"});
}

TEST(BrokenJail, WithCapabilities) {
  VmBench().expectRefused(
      Fault::CAPABILITIES | Fault::BOUNDING_SET,
      {"CapPrm is 0000000000002000, not 0", "CapEff is 0000000000002000, not 0"});
}

TEST(BrokenJail, WithABoundingSet) {
  VmBench().expectRefused(Fault::BOUNDING_SET, {"it has capabilities: CapBnd is "});
}

TEST(BrokenJail, WithoutItsStartFilter) {
  VmBench().expectRefused(Fault::SECCOMP,
                          {"it has 1 system call filters; its profile makes that 2"});
}

// Mode and count are as they should be.
TEST(BrokenJail, WithOneOtherInstructionInAFilter) {
  if (sandbox::whyNoFilterReading().size() > 0) {
    GTEST_SKIP() << "instructions are not compared: " << sandbox::whyNoFilterReading().cStr();
  }
  VmBench().expectRefused(
      Fault::ALTERED_FILTER,
      {"it has a system call filter (1.) that is not its profile's: instruction "});
}

TEST(BrokenJail, WithoutLimits) {
  VmBench().expectRefused(Fault::LIMITS, {"its limit NOFILE is "});
}

TEST(BrokenJail, WithAForgottenFd) {
  kj::AutoCloseFd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  int forgotten = fcntl(file, F_DUPFD, 3900);
  ASSERT_GE(forgotten, 0);
  KJ_DEFER(close(forgotten));
  VmBench().expectRefused(Fault::CLOSED_FDS, {"its fd " + std::to_string(forgotten) +
                                              " (/dev/null) is not in its profile"});
}

TEST(BrokenJail, WithTheUidOfRoot) {
  if (geteuid() != 0) GTEST_SKIP() << "an ordinary user's actors have its id";
  VmBench().expectRefused(Fault::OWN_ID, {"it has Uid 0 0 0 0 on the host, not 1879"});
}

// The kernel takes no filter from a process that could still gain privileges, so such an actor
// ends by itself before there is anything to look at.
TEST(BrokenJail, ThatMayGainPrivileges) {
  Refusal refusal = VmBench().startWithout(Fault::NO_NEW_PRIVILEGES);
  EXPECT_EQ(ExitCode::JAIL, refusal.exit) << refusal.message;
  EXPECT_EQ(0u, refusal.message.find("TRP-jail-022: ")) << refusal.message;
  EXPECT_NE(std::string::npos,
            refusal.message.find("\n  1. the kernel refused the filter of stage"))
      << refusal.message;
}

// Layers that the kernel lacks.

TEST(KernelOfAVm, ThatLacksARequiredLayerIsAStartError) {
  auto kernel = sandbox::viewKernel();
  kernel.version = sandbox::kernelVersion(6, 12);
  kernel.landlockAbi = 0;
  kernel.landlockError = EOPNOTSUPP;
  std::vector<std::string> notes;
  Refusal refusal = VmBench().startOn(kernel, notes);
  EXPECT_EQ(ExitCode::JAIL, refusal.exit) << refusal.message;
  EXPECT_EQ(0u, refusal.message.find("TRP-jail-011: ")) << refusal.message;
  EXPECT_NE(std::string::npos, refusal.message.find("lacks landlock: FILES")) << refusal.message;
}

TEST(KernelOfAVm, ThatIsTooOldIsAStartError) {
  auto kernel = sandbox::viewKernel();
  kernel.version = sandbox::kernelVersion(5, 10);
  std::vector<std::string> notes;
  Refusal refusal = VmBench().startOn(kernel, notes);
  EXPECT_EQ(ExitCode::JAIL, refusal.exit) << refusal.message;
  EXPECT_EQ(0u, refusal.message.find("TRP-jail-010: ")) << refusal.message;
}

TEST(KernelOfAVm, OfDebian12RunsItAndItsUserIsToldWhatIsMissing) {
  auto kernel = sandbox::viewKernel();
  kernel.version = sandbox::kernelVersion(6, 1);
  kernel.landlockAbi = 2;
  kernel.mdwe = kernel.executableSeals = false;
  std::vector<std::string> notes;
  Refusal refusal = VmBench().startOn(kernel, notes);
  EXPECT_EQ("", refusal.message);
  EXPECT_EQ(ExitCode::POWERED_OFF, refusal.exit);
  std::string all;
  for (const std::string& note : notes)
    all += note + "\n";
  for (const char* layer :
       {"landlock: TRUNCATE (Linux 6.2)", "landlock: TCP (Linux 6.7)",
        "landlock: DEVICE_IOCTLS (Linux 6.10)", "landlock: ABSTRACT_SOCKETS (Linux 6.12)",
        "landlock: SIGNALS (Linux 6.12)", "mdwe ", "executable_seals "}) {
    EXPECT_NE(std::string::npos, all.find(layer)) << layer << "\n" << all;
  }
}

}  // namespace
}  // namespace troupe
