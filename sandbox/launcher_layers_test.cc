// The layers of a jail that not every kernel has, and those that a profile can leave out.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/kernel_layers.h"
#include "sandbox/launcher.h"
#include "sandbox/testing/jail_bench.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

constexpr int GET_MDWE = 66;
constexpr unsigned NOEXEC_SEAL = 8;
constexpr ProfileLayer OFF = {ProfileLayer::OFF, 0};
constexpr ProfileLayer OPTIONAL = {ProfileLayer::OPTIONAL, 0};

std::string describeException(kj::FunctionParam<void()> action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { action(); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A process of the test's own, in which `body` may break what it likes.
int inChild(kj::FunctionParam<bool()> body) {
  pid_t pid = fork();
  if (pid == 0) {
    bool good = false;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { good = body(); })) {
      fprintf(stderr, "%s\n", kj::str(*exception).cStr());
    }
    _exit(good ? 0 : 1);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  return status;
}

// From now on the kernel answers `call`, with `first` as its first argument if that is given, as
// one that does not know it.
void forget(int call, kj::Maybe<uint32_t> first, int error) {
  uint32_t wanted = 0;
  bool any = true;
  KJ_IF_MAYBE (value, first) {
    wanted = *value;
    any = false;
  }
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, uint32_t(call), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | (any ? BPF_JGE : BPF_JEQ) | BPF_K, wanted, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | uint32_t(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter = {sizeof(program) / sizeof(program[0]), program};
  KJ_SYSCALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  KJ_SYSCALL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
}

bool expectRefusal(JailBench& bench, const std::string& wanted, const ActorOptions& options = {}) {
  std::string message = describeException([&]() { bench.start(options); });
  bool found = contains(message, wanted);
  if (!found) fprintf(stderr, "%s\nlacks: %s\n", message.c_str(), wanted.c_str());
  return found;
}

// What the kernel of this machine has.

TEST(JailLayers, WhatKernelsHaveIsInEveryJail) {
  JailBench bench(LaunchFaults{LaunchFaults::SECCOMP});
  Actor actor = bench.start();
  KernelLayers kernel = viewKernel();
  size_t landlockMissing = kernel.landlockAbi >= 6   ? 0
                           : kernel.landlockAbi >= 5 ? 2
                           : kernel.landlockAbi >= 4 ? 3
                           : kernel.landlockAbi >= 3 ? 4
                                                     : 5;
  EXPECT_EQ(landlockMissing + !kernel.mdwe + !kernel.executableSeals,
            bench.launcher().missingLayers().size());
  EXPECT_EQ(kernel.mdwe ? 1 : -EINVAL, KJ_ASSERT_NONNULL(bench.tryCall(actor, "mdwe")));
  EXPECT_EQ(-EACCES, KJ_ASSERT_NONNULL(bench.tryCall(actor, "open-root")));
}

TEST(JailLayers, MdweKeepsMemoryFromBecomingExecutable) {
  KernelLayers kernel = viewKernel();
  ASSERT_TRUE(kernel.mdwe || kernel.version < kernelVersion(6, 3));
  JailBench bench(LaunchFaults{LaunchFaults::SECCOMP});
  Actor actor = bench.start();
  int64_t answer = kernel.mdwe ? -EACCES : 0;
  EXPECT_EQ(answer, KJ_ASSERT_NONNULL(bench.tryCall(actor, "executable-mapping")));
  EXPECT_EQ(answer, KJ_ASSERT_NONNULL(bench.tryCall(actor, "become-executable")));
  // Between clone and exec a child shares this process's memory; none of it became the child's.
  EXPECT_EQ(kernel.mdwe ? 0 : -1, prctl(GET_MDWE, 0, 0, 0, 0));
}

TEST(JailLayers, MdweThatAProfileHasOffIsNotThere) {
  JailBench bench(LaunchFaults{LaunchFaults::SECCOMP});
  Profile profile = SAMPLE_PROFILE;
  profile.layers.mdwe = OFF;
  Actor actor = bench.start({"sample0", "good day", nullptr, profile});
  EXPECT_EQ(0, KJ_ASSERT_NONNULL(bench.tryCall(actor, "become-executable")));
}

// What it lacks: here it answers as a kernel without the layer does.

TEST(JailLayers, KernelWithoutLandlockIsAStartError) {
  EXPECT_EQ(0, inChild([]() {
              forget(SYS_landlock_create_ruleset, nullptr, EOPNOTSUPP);
              JailBench bench;
              return expectRefusal(
                  bench,
                  "lacks landlock: FILES (Linux 5.13 with landlock enabled; the kernel says "
                  "Operation not supported (EOPNOTSUPP))");
            }));
  EXPECT_EQ(0, inChild([]() {
              forget(SYS_landlock_create_ruleset, nullptr, ENOSYS);
              JailBench bench;
              return expectRefusal(bench, "the kernel says Function not implemented (ENOSYS)");
            }));
}

TEST(JailLayers, KernelWithoutLandlockIsToldWhereTheProfileAcceptsIt) {
  EXPECT_EQ(0, inChild([]() {
              forget(SYS_landlock_create_ruleset, nullptr, EOPNOTSUPP);
              JailBench bench;
              Profile profile = SAMPLE_PROFILE;
              for (ProfileLayer& layer : profile.layers.landlock)
                layer = OPTIONAL;
              Actor one = bench.start({"sample0", "good day", nullptr, profile});
              Actor two = bench.start({"sample1", "good day", nullptr, profile});
              two.sample.helloRequest().send().wait(bench.scope());
              auto missing = bench.launcher().missingLayers();
              bool told = missing.size() >= LANDLOCK_ACCESS_COUNT &&
                          missing.size() <= LANDLOCK_ACCESS_COUNT + 2 &&
                          contains(missing[0].cStr(), "landlock: FILES (Linux 5.13");
              if (!told) fprintf(stderr, "%s\n", kj::str(missing).cStr());
              return told;
            }));
}

TEST(JailLayers, KernelWithoutMdweIsAStartErrorFrom63On) {
  bool mayBeMissing = viewKernel().version < kernelVersion(6, 3);
  EXPECT_EQ(0, inChild([mayBeMissing]() {
              forget(SYS_prctl, GET_MDWE, EINVAL);
              JailBench bench;
              if (mayBeMissing) {
                bench.start();
                return contains(kj::str(bench.launcher().missingLayers()).cStr(), "mdwe");
              }
              return expectRefusal(
                  bench, "lacks mdwe (mappings that cannot become executable) (Linux 6.3)");
            }));
}

TEST(JailLayers, KernelOfDebian12IsToldWhatItLacks) {
  KernelLayers kernel = viewKernel();
  kernel.version = kernelVersion(6, 1);
  kernel.landlockAbi = 2;
  kernel.mdwe = false;
  kernel.executableSeals = false;
  LaunchFaults faults{LaunchFaults::SECCOMP};
  faults.kernel = &kernel;
  JailBench bench(faults);
  Actor actor = bench.start();
  EXPECT_EQ(7u, bench.launcher().missingLayers().size());
  EXPECT_EQ(0, KJ_ASSERT_NONNULL(bench.tryCall(actor, "become-executable")));
  EXPECT_EQ(-EACCES, KJ_ASSERT_NONNULL(bench.tryCall(actor, "open-root")));
}

TEST(JailLayers, OldKernelIsAStartError) {
  EXPECT_EQ(0, inChild([]() {
              KJ_SYSCALL(personality(UNAME26));  // the kernel then calls itself 2.6.60 or so
              JailBench bench;
              return expectRefusal(
                  bench,
                  "TRP-jail-010: sample0 is not started on Linux 2.6: its profile, "
                  "sandbox/testing/sample.profile, is for Linux 6.1 or later");
            }));
}

// What profiles can leave out.

Profile without(NamespaceKind kind) {
  Profile profile = SAMPLE_PROFILE;
  profile.layers.namespaces[size_t(kind)] = OFF;
  return profile;
}

void expectAgreement(JailBench& bench, Actor& actor, const Profile& profile, size_t differences) {
  actor.sample.helloRequest().send().wait(bench.scope());
  AttestOptions options;
  options.stage = Stage::RUN;
  EXPECT_EQ(0u, attest(profile, actor.child->pid(), options).differences.size());
  // The other profile sees it.
  EXPECT_EQ(differences, attest(SAMPLE_PROFILE, actor.child->pid(), options).differences.size());
}

TEST(JailLayers, NamespaceThatAProfileLeavesOutIsNotMade) {
  for (auto kind : {NamespaceKind::PID, NamespaceKind::NET, NamespaceKind::IPC, NamespaceKind::UTS,
                    NamespaceKind::CGROUP}) {
    JailBench bench;
    Profile profile = without(kind);
    Actor actor = bench.start({"sample0", "enter run at once", nullptr, profile});
    expectAgreement(bench, actor, profile, 1);
  }
}

TEST(JailLayers, CapabilityThatAProfileNamesIsKeptAndNoOther) {
  JailBench bench;
  Profile profile = SAMPLE_PROFILE;
  profile.layers.capabilities = uint64_t{1} << 13 | uint64_t{1} << 40;  // NET_RAW, and a late one
  Actor actor = bench.start({"sample0", "enter run at once", nullptr, profile});
  expectAgreement(bench, actor, profile, 5);  // the five sets
}

TEST(JailLayers, LandlockDeniesWhatTheProfileSaysAndNoMore) {
  JailBench bench(LaunchFaults{LaunchFaults::SECCOMP});
  Profile profile = SAMPLE_PROFILE;
  profile.layers.landlock[size_t(LandlockAccess::FILES)] = OFF;
  Actor actor = bench.start({"sample0", "good day", nullptr, profile});
  EXPECT_LE(0, KJ_ASSERT_NONNULL(bench.tryCall(actor, "open-root")));
}

// Memory that could be executed.

// The sample's, whose "disk" is memory.
class MemoryProfile {
 public:
  MemoryProfile() : fds(kj::heapArray(kj::arrayPtr(SAMPLE_PROFILE.fds, SAMPLE_PROFILE.fdCount))) {
    for (ProfileFd& fd : fds) {
      if (fd.name == "disk"_kj) fd.kind = "memfd";
    }
    profile = SAMPLE_PROFILE;
    profile.fds = fds.begin();
  }
  Profile profile;

 private:
  kj::Array<ProfileFd> fds;
};

kj::AutoCloseFd memory(unsigned flags) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("test", MFD_CLOEXEC | flags));
  return kj::AutoCloseFd(fd);
}

TEST(JailLayers, MemoryThatCouldBeExecutedIsHandedToNobody) {
  KernelLayers kernel = viewKernel();
  ASSERT_TRUE(kernel.executableSeals || kernel.version < kernelVersion(6, 3));
  MemoryProfile memoryProfile;
  JailBench bench;
  auto loose = memory(MFD_ALLOW_SEALING);
  ActorOptions withLoose = {"sample0", "good day", loose.get(), memoryProfile.profile};
  if (!kernel.executableSeals) {
    bench.start(withLoose);
    return;
  }
  EXPECT_TRUE(expectRefusal(
      bench, "TRP-jail-012: sample0 is handed \"disk\", memory that could be executed", withLoose));
  auto sealed = memory(NOEXEC_SEAL);
  Actor actor = bench.start({"sample0", "enter run at once", sealed.get(), memoryProfile.profile});
  expectAgreement(bench, actor, memoryProfile.profile, 1);
}

TEST(JailLayers, AttestationFindsMemoryThatCouldBeExecuted) {
  MemoryProfile memoryProfile;
  Profile lenient = memoryProfile.profile;
  lenient.layers.executableSeals = OFF;
  JailBench bench;
  auto loose = memory(MFD_ALLOW_SEALING);
  Actor actor = bench.start({"sample0", "enter run at once", loose.get(), lenient});
  actor.sample.helloRequest().send().wait(bench.scope());
  AttestOptions options;
  options.stage = Stage::RUN;
  EXPECT_EQ(0u, attest(lenient, actor.child->pid(), options).differences.size());
  auto found = attest(memoryProfile.profile, actor.child->pid(), options).differences;
  if (!viewKernel().executableSeals) {
    EXPECT_EQ(0u, found.size());
    return;
  }
  ASSERT_EQ(1u, found.size());
  EXPECT_EQ(kj::StringPtr("its fd 16 (disk) is memory that could be executed"), found[0]);
}

}  // namespace
}  // namespace troupe::sandbox::testing
