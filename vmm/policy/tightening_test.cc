#include <gtest/gtest.h>

#include "sandbox/tool/looser.h"
#include "vmm/policy/catalogue.h"
#include "vmm/policy/override.h"

// A profile for a device that runs is as tight as the one in force, or says what it is not.
namespace troupe {
namespace {

constexpr char BLK[] = "devices/blk/blk.profile";
constexpr char COMMON[] = "sandbox/common/jail.profile";

std::string builtIn(const std::string& path) {
  return *BuiltInFiles().read(path);
}

std::string instead(const std::string& path, const std::string& old, const std::string& text) {
  std::string profile = builtIn(path);
  size_t at = profile.find(old);
  EXPECT_NE(std::string::npos, at) << old;
  return profile.replace(at, old.size(), text);
}

// What a profile of these texts lets blk do more than the one built in.
std::vector<std::string> looserWith(std::map<std::string, std::string> files) {
  files.emplace(BLK, builtIn(BLK));
  auto result = compileOverride("/mine", files, BuiltInFiles(), replaceableActors());
  EXPECT_TRUE(result.errors.empty()) << result.errors[0];
  if (result.profiles.size() != 1) return {"no profile"};
  return sandbox::looserParts(sandbox::readPolicy(BuiltInFiles(), BLK), result.profiles[0].policy);
}

void expectOne(const std::vector<std::string>& parts, const std::string& words) {
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_NE(parts[0].find(words), std::string::npos) << parts[0];
}

TEST(Tightening, TheSameIsTightEnough) {
  EXPECT_EQ(looserWith({}).size(), 0u);
}

TEST(Tightening, ARuleLessOrANarrowerOneIsTighter) {
  EXPECT_EQ(looserWith({{BLK, instead(BLK, "fd: \"disk\" fd: \"backing\" reason: \"whether it lies",
                                      "fd: \"disk\" reason: \"whether it lies")}})
                .size(),
            0u);
  EXPECT_EQ(looserWith({{BLK, instead(BLK, "value: 1073741824", "value: 1000000000")}}).size(), 0u);
}

TEST(Tightening, ARuleMoreIsNamedWithItsStageAndPlace) {
  auto parts = looserWith(
      {{BLK, instead(BLK, "\nstart {\n",
                     "\nstart {\n  rule { syscall: \"sethostname\" reason: \"because\" }\n")}});
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].find("start: sethostname (/mine/devices/blk/blk.profile:"), 0u) << parts[0];
}

TEST(Tightening, AWiderConditionIsLooser) {
  auto parts = looserWith({{BLK, instead(BLK, "rule { syscall: \"fdatasync\" fd: \"disk\"",
                                         "rule { syscall: \"fdatasync\" fd: \"overlay\"")}});
  ASSERT_GE(parts.size(), 1u);
  EXPECT_NE(parts[0].find("fdatasync, fd = overlay"), std::string::npos) << parts[0];
}

TEST(Tightening, ALayerLessOrOneThatMayBeMissingIsLooser) {
  expectOne(looserWith({{COMMON,
                         instead(COMMON, "TCP optional: \"since 6.7\"", "TCP optional: \"yes\"")}}),
            "landlock TCP: optional");
}

TEST(Tightening, MoreMemoryOrNoLimitIsLooser) {
  expectOne(looserWith({{BLK, instead(BLK, "value: 1073741824", "value: 1073741825")}}),
            "cgroup memory_max: 1073741825, where it was 1073741824");
  expectOne(looserWith({{BLK, instead(BLK, "  pids_max { value: 160 optional: \"yes\" }\n", "")}}),
            "cgroup pids_max: none");
}

TEST(Tightening, AnOperationMoreOfARingIsLooser) {
  expectOne(
      looserWith({{BLK, instead(BLK, "opcode: [ \"READV\"", "opcode: [ \"READ\", \"READV\"")}}),
      "io_uring: READ");
}

}  // namespace
}  // namespace troupe
