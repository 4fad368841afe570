// What the layers of a jail stop by themselves: the scenarios without the system call filter, and
// then without another layer as well.

#include <gtest/gtest.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "sandbox/probe/probe_bench.h"
#include "sandbox/probe/reach.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::probe {
namespace {

// Lines "VARIANT: GROUP: NAME" of what is known to get through; what gets through without the
// filter may do so when more is missing.
constexpr const char* KNOWN = "sandbox/probe/layers.reach";
constexpr const char* NO_FILTER = "no filter";

struct Variant {
  std::string name;
  uint32_t leftOut;
  std::string onlyGroup;  // empty: all
};

std::string lineOf(const std::string& variant, const Scenario& scenario, const Report& report) {
  std::string line = variant + ": " + scenario.group + ": " + scenario.name;
  return report.outcome == Outcome::RETURNED ? line : line + ": " + wordFor(report);
}

// What got through and is not known to. That something known is refused here is no failure:
// kernels differ in what they have.
std::string newIn(const Variant& variant) {
  const char* written = getenv("PROBE_WRITE");
  std::set<std::string> known;
  std::ifstream file(written == nullptr ? KNOWN : written);
  for (std::string line; std::getline(file, line);)
    known.insert(line);

  auto scenarios = makeScenarios();
  std::vector<uint32_t> chosen;
  for (uint32_t i = 0; i < scenarios.size(); i++) {
    if (variant.onlyGroup.empty() || scenarios[i].group == variant.onlyGroup) chosen.push_back(i);
  }
  ProbeBench bench(SAMPLE_PROFILE, LaunchFaults{variant.leftOut});
  auto reports = bench.inChildren({}, {}, chosen);
  std::string added;
  for (size_t i = 0; i < chosen.size(); i++) {
    if (reports[i].outcome == Outcome::RETURNED && reports[i].value < 0) continue;
    const Scenario& scenario = scenarios[chosen[i]];
    std::string line = lineOf(variant.name, scenario, reports[i]);
    bool isKnown = known.count(line) != 0 || known.count(lineOf(NO_FILTER, scenario, reports[i]));
    if (!isKnown) added += line + "\n";
  }
  if (written == nullptr) return added;
  std::ofstream(written, std::ios::app) << added;
  return "";
}

TEST(Layers, WithoutTheFilterWhatLiesOutsideStaysOutOfReach) {
  EXPECT_EQ("", newIn({NO_FILTER, LaunchFaults::SECCOMP, ""}));
}

TEST(Layers, NamespacesHoldWithoutLandlock) {
  EXPECT_EQ("",
            newIn({"no filter, no landlock", LaunchFaults::SECCOMP | LaunchFaults::LANDLOCK, ""}));
}

TEST(Layers, LandlockHoldsWhereTheHostsFilesAreInSight) {
  if (syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
    GTEST_SKIP() << "this kernel has no landlock";
  }
  EXPECT_EQ("", newIn({"no filter, root of the host",
                       LaunchFaults::SECCOMP | LaunchFaults::EMPTY_ROOT, ""}));
}

TEST(Layers, IdsHoldWhereTheHostsProcessesAreInSight) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives each actor an id of its own";
  EXPECT_EQ("", newIn({"no filter, processes of the host",
                       LaunchFaults::SECCOMP | LaunchFaults::PID_NAMESPACE, "reach a process"}));
}

}  // namespace
}  // namespace troupe::sandbox::probe
