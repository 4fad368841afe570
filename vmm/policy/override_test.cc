#include "vmm/policy/override.h"

#include <gtest/gtest.h>

#include "vmm/policy/catalogue.h"

// What comes of a folder of profiles: each mistake is one error at its place, and nothing is good
// then.
namespace troupe {
namespace {

using Files = std::map<std::string, std::string>;

constexpr char RNG[] = "devices/rng/rng.profile";

Override compiled(const Files& files) {
  return compileOverride("/etc/mine", files, BuiltInFiles(), replaceableActors());
}

std::string builtIn(const std::string& path) {
  return *BuiltInFiles().read(path);
}

// The profile of rng with a line more, a rule more in its last stage, or something else in place of
// `old`.
std::string rngWith(const std::string& more) {
  return builtIn(RNG) + more + "\n";
}

std::string rngInstead(const std::string& old, const std::string& text) {
  std::string profile = builtIn(RNG);
  size_t at = profile.find(old);
  EXPECT_NE(std::string::npos, at) << old;
  return profile.replace(at, old.size(), text);
}

std::string rngWithRules(const std::string& rules) {
  return rngInstead("\nrun {\n", "\nrun {\n" + rules + "\n");
}

void expectError(const Files& files, const std::string& beginning, const std::string& words) {
  Override result = compiled(files);
  EXPECT_EQ(0u, result.profiles.size());
  ASSERT_LE(1u, result.errors.size());
  EXPECT_EQ(0u, result.errors[0].find(beginning)) << result.errors[0];
  EXPECT_NE(std::string::npos, result.errors[0].find(words)) << result.errors[0];
}

TEST(Override, OfTheSameTextHasTheSameFilters) {
  Override result = compiled({{RNG, builtIn(RNG)}});
  ASSERT_EQ(0u, result.errors.size()) << result.errors[0];
  ASSERT_EQ(1u, result.profiles.size());
  EXPECT_EQ(RNG, result.profiles[0].path);
  EXPECT_EQ("rng", result.profiles[0].policy.actor);
  EXPECT_EQ("/etc/mine/devices/rng/rng.profile", result.profiles[0].policy.path);
  sandbox::Policy original = readPolicy(BuiltInFiles(), RNG);
  ASSERT_EQ(original.filters.size(), result.profiles[0].programs.size());
  for (size_t i = 0; i < original.filters.size(); i++) {
    auto wanted = buildProgram(original.filters[i]);
    auto got = result.profiles[0].programs[i];
    ASSERT_EQ(wanted.size(), got.size());
    for (size_t at = 0; at < wanted.size(); at++)
      EXPECT_EQ(wanted[at].k, got[at].k);
  }
}

TEST(Override, TakesItsIncludesFromItsFolderFirst) {
  const std::string EXIT = "sandbox/common/exit.profile";
  std::string exit = builtIn(EXIT);
  size_t end = exit.rfind('}');
  exit.insert(end, "  rule { syscall: \"sched_yield\" reason: \"a test\" }\n");
  Override result =
      compiled({{RNG, rngInstead("syscalls: 12 unconditional: 4", "syscalls: 13 unconditional: 5")},
                {EXIT, exit}});
  ASSERT_EQ(0u, result.errors.size()) << result.errors[0];
  std::string where;
  for (const auto& rule : filterOf(result.profiles[0].policy, "run")->rules) {
    if (rule.syscallName == "sched_yield") where = rule.where.file;
  }
  EXPECT_EQ("/etc/mine/sandbox/common/exit.profile", where);
}

TEST(Override, WithAnUnknownWordNamesItsPlace) {
  expectError({{RNG, "actor: \"rng\"\nfrobnicate: 3\n"}},
              "/etc/mine/devices/rng/rng.profile:2:1: ", "frobnicate");
}

TEST(Override, WithAMissingIncludeNamesItsPlace) {
  expectError({{RNG, rngWith("include: \"sandbox/common/none.profile\"")}},
              "/etc/mine/devices/rng/rng.profile:", "there is no \"sandbox/common/none.profile\"");
}

TEST(Override, WithAnUnknownSystemCallNamesItsPlace) {
  expectError({{RNG, rngWithRules("rule { syscall: \"getrandon\" reason: \"x\" }")}},
              "/etc/mine/devices/rng/rng.profile:", "getrandon");
}

TEST(Override, WithAnUnknownFdNamesItsPlace) {
  expectError({{RNG, rngWithRules("rule { syscall: \"read\" fd: \"disk\" reason: \"x\" }")}},
              "/etc/mine/devices/rng/rng.profile:", "the profile has no fd \"disk\"");
}

TEST(Override, WithAStageThatAllowsWhatOnlyStartMayDoIsRefused) {
  expectError({{RNG, rngWithRules("rule { syscall: \"openat\" reason: \"x\" }")}},
              "/etc/mine/devices/rng/rng.profile:", "openat");
}

TEST(Override, BeyondItsBudgetIsRefused) {
  expectError({{RNG, rngWithRules("rule { syscall: \"sched_yield\" syscall: \"getppid\" "
                                  "syscall: \"getuid\" syscall: \"getgid\" reason: \"x\" }")}},
              "/etc/mine/devices/rng/rng.profile:", "budget");
}

TEST(Override, WithAnFdTheActorDoesNotKnowIsRefused) {
  expectError({{RNG, rngWith("fd { name: \"extra\" number: 40 kind: PIPE from: PLACED }")}},
              "/etc/mine/devices/rng/rng.profile:", "rng has no fd \"extra\"");
}

TEST(Override, WithAnFdAtAnotherNumberIsRefused) {
  expectError(
      {{RNG, rngInstead("name: \"kick\" number: 17", "name: \"kick\" number: 33")}},
      "/etc/mine/devices/rng/rng.profile:", "it must have number 17, count 1, kind eventfd");
}

TEST(Override, OfAnotherActorIsRefused) {
  expectError({{RNG, builtIn("devices/console/serial.profile")}},
              "/etc/mine/devices/rng/rng.profile:1:1: ",
              "is the profile of \"serial\", but lies where that of \"rng\" does");
}

TEST(Override, OfAnActorThatDoesNotExistIsRefused) {
  expectError({{"devices/rng/rngg.profile", builtIn(RNG)}},
              "/etc/mine/devices/rng/rngg.profile:1:1: ", "did you mean devices/rng/rng.profile?");
}

TEST(Override, WithAFileThatNobodyIncludesIsRefused) {
  expectError({{RNG, builtIn(RNG)}, {"sandbox/common/none.profile", "# nothing\n"}},
              "/etc/mine/sandbox/common/none.profile:1:1: ", "included by none");
}

TEST(Override, OfTheCompilerItselfIsRefused) {
  expectError({{"vmm/policy/compiler.profile", "actor: \"compiler\"\n"}},
              "/etc/mine/vmm/policy/compiler.profile:1:1: ", "is no actor's profile");
}

TEST(Override, OfGarbageIsRefused) {
  expectError({{RNG, std::string(200000, '{')}}, "/etc/mine/devices/rng/rng.profile:1:", "");
  expectError({{RNG, std::string(300000, 'a')}},
              "/etc/mine/devices/rng/rng.profile:1:1: ", "longer than");
  expectError({{RNG, ""}}, "/etc/mine/devices/rng/rng.profile:1:1: ", "has no `actor`");
}

}  // namespace
}  // namespace troupe
