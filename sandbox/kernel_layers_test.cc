#include "sandbox/kernel_layers.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <kj/exception.h>
#include <sched.h>

#include <cstring>
#include <string>
#include <vector>

#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

// Linux 6.12 with everything.
KernelLayers complete() {
  KernelLayers kernel = {};
  kernel.version = kernelVersion(6, 12);
  for (bool& one : kernel.namespaces)
    one = true;
  kernel.landlockAbi = 6;
  kernel.mdwe = true;
  kernel.executableSeals = true;
  return kernel;
}

// Debian 12's.
KernelLayers bookworm() {
  KernelLayers kernel = complete();
  kernel.version = kernelVersion(6, 1);
  kernel.landlockAbi = 2;
  kernel.mdwe = false;
  kernel.executableSeals = false;
  return kernel;
}

std::vector<std::string> missing(const LayerPlan& plan) {
  std::vector<std::string> texts;
  for (const kj::String& one : plan.missing)
    texts.push_back(one.cStr());
  return texts;
}

// The error of planning `profile` on `kernel`.
std::string refusal(const Profile& profile, const KernelLayers& kernel) {
  KJ_IF_MAYBE (exception,
               kj::runCatchingExceptions([&]() { planLayers(profile, "rng0", kernel); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(PlanLayers, TakesAllOfThemWhereTheKernelHasThem) {
  LayerPlan plan = planLayers(SAMPLE_PROFILE, "rng0", complete());
  EXPECT_EQ(uint64_t(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC |
                     CLONE_NEWUTS | CLONE_NEWCGROUP),
            plan.namespaces);
  for (bool one : plan.landlock)
    EXPECT_TRUE(one);
  EXPECT_TRUE(plan.mdwe);
  EXPECT_TRUE(plan.executableSeals);
  EXPECT_EQ(0u, plan.missing.size());
}

TEST(PlanLayers, OnDebian12TellsWhatIsMissing) {
  LayerPlan plan = planLayers(SAMPLE_PROFILE, "rng0", bookworm());
  EXPECT_TRUE(plan.landlock[size_t(LandlockAccess::FILES)]);
  EXPECT_FALSE(plan.landlock[size_t(LandlockAccess::TRUNCATE)]);
  EXPECT_FALSE(plan.mdwe);
  EXPECT_FALSE(plan.executableSeals);
  EXPECT_EQ((std::vector<std::string>{
                "landlock: TRUNCATE (Linux 6.2)", "landlock: TCP (Linux 6.7)",
                "landlock: DEVICE_IOCTLS (Linux 6.10)", "landlock: ABSTRACT_SOCKETS (Linux 6.12)",
                "landlock: SIGNALS (Linux 6.12)",
                "mdwe (mappings that cannot become executable) (Linux 6.3)",
                "executable_seals (memfds that cannot be executed) (Linux 6.3)"}),
            missing(plan));
}

TEST(PlanLayers, ALayerThatAnOlderKernelHasIsTaken) {
  KernelLayers kernel = bookworm();
  kernel.mdwe = true;  // as a distribution may bring it
  EXPECT_TRUE(planLayers(SAMPLE_PROFILE, "rng0", kernel).mdwe);
}

TEST(PlanLayers, ALayerThatMustBeThereIsAStartErrorWithoutIt) {
  KernelLayers kernel = complete();
  kernel.mdwe = false;
  EXPECT_EQ(
      "TRP-jail-011: rng0 cannot be jailed: this kernel, Linux 6.12, lacks mdwe (mappings that "
      "cannot become executable) (Linux 6.3), and the profile sandbox/testing/sample.profile "
      "requires it since Linux 6.3; `uname -r` shows it",
      refusal(SAMPLE_PROFILE, kernel));
  kernel = complete();
  kernel.executableSeals = false;
  EXPECT_NE(std::string::npos, refusal(SAMPLE_PROFILE, kernel).find("lacks executable_seals"));
  // Each access of landlock on a kernel that should know it.
  for (auto [abi, access] : {std::pair{5, "ABSTRACT_SOCKETS"}, std::pair{4, "DEVICE_IOCTLS"},
                             std::pair{3, "TCP"}, std::pair{2, "TRUNCATE"}}) {
    kernel = complete();
    kernel.landlockAbi = abi;
    std::string wanted = std::string("lacks landlock: ") + access;
    EXPECT_NE(std::string::npos, refusal(SAMPLE_PROFILE, kernel).find(wanted)) << access;
  }
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    kernel = complete();
    kernel.namespaces[i] = false;
    EXPECT_EQ(0u, refusal(SAMPLE_PROFILE, kernel).find("TRP-jail-011: ")) << i;
  }
}

TEST(PlanLayers, LandlockThatIsSwitchedOffIsAStartErrorUnlessTheProfileAcceptsIt) {
  KernelLayers kernel = bookworm();
  kernel.landlockAbi = 0;
  kernel.landlockError = EOPNOTSUPP;
  EXPECT_EQ(
      "TRP-jail-011: rng0 cannot be jailed: this kernel, Linux 6.1, lacks landlock: FILES (Linux "
      "5.13 with landlock enabled; the kernel says Operation not supported (EOPNOTSUPP)), and the "
      "profile sandbox/testing/sample.profile requires it; `cat /sys/kernel/security/lsm` shows it",
      refusal(SAMPLE_PROFILE, kernel));
  Profile lenient = SAMPLE_PROFILE;
  lenient.layers.landlock[size_t(LandlockAccess::FILES)] = {ProfileLayer::OPTIONAL, 0};
  LayerPlan plan = planLayers(lenient, "rng0", kernel);
  for (bool one : plan.landlock)
    EXPECT_FALSE(one);
  EXPECT_EQ(
      "landlock: FILES (Linux 5.13 with landlock enabled; the kernel says Operation not "
      "supported (EOPNOTSUPP))",
      missing(plan)[0]);
}

TEST(PlanLayers, ALayerThatIsOffIsNeitherTakenNorMissing) {
  Profile profile = SAMPLE_PROFILE;
  profile.layers.mdwe = {ProfileLayer::OFF, 0};
  profile.layers.namespaces[size_t(NamespaceKind::NET)] = {ProfileLayer::OFF, 0};
  LayerPlan plan = planLayers(profile, "rng0", complete());
  EXPECT_FALSE(plan.mdwe);
  EXPECT_EQ(0u, plan.namespaces & CLONE_NEWNET);
  KernelLayers kernel = complete();
  kernel.mdwe = false;
  EXPECT_EQ(0u, planLayers(profile, "rng0", kernel).missing.size());
}

TEST(PlanLayers, AnOldKernelIsAStartError) {
  KernelLayers kernel = complete();
  kernel.version = kernelVersion(5, 15);
  EXPECT_EQ(
      "TRP-jail-010: rng0 is not started on Linux 5.15: its profile, "
      "sandbox/testing/sample.profile, "
      "is for Linux 6.1 or later; `uname -r` shows it",
      refusal(SAMPLE_PROFILE, kernel));
}

TEST(ViewKernel, HasWhatEveryTestMachineHas) {
  KernelLayers kernel = viewKernel();
  EXPECT_GE(kernel.version, kernelVersion(6, 1));
  for (bool one : kernel.namespaces)
    EXPECT_TRUE(one);
  if (kernel.version >= kernelVersion(6, 3)) {
    EXPECT_TRUE(kernel.mdwe);
    EXPECT_TRUE(kernel.executableSeals);
  }
}

}  // namespace
}  // namespace troupe::sandbox::testing
