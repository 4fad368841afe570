#include "sandbox/layer_guard.h"

#include <gtest/gtest.h>

#include <string>

#include "sandbox/testing/profile_tree.h"

namespace troupe::sandbox::testing {
namespace {

constexpr char ACTOR[] =
    "actor: 'a'\n"
    "fd { name: 'ram' number: 16 kind: MEMFD from: PLACED closed: true }\n";
constexpr char ALL[] = "memory { access: ALL fd: 'ram' }\n";
constexpr char READ_ONLY[] = "memory { access: READ_ONLY fd: 'ram' }\n";
constexpr char RANGES[] = "memory { access: RANGES fd: 'ram' range { size: 4096 } }\n";
constexpr char NONE[] = "memory { access: NONE }\n";
constexpr char RING[] = "io_uring { opcode: 'READV' reason: 'x' }\n";

// The error of a profile whose fourth line is `rest`.
std::string errorOf(const std::string& layer, const std::string& rest) {
  return ProfileTree().add("a", ACTOR + layer + rest).error("a");
}

std::string rule(const std::string& stage, const std::string& conditions) {
  return stage + " { rule { syscall: " + conditions + " reason: 'x' } }";
}

constexpr char MAP_FILE[] = "'mmap' arg { index: 3 value: 'MAP_SHARED' }";
constexpr char MAP_OWN[] = "'mmap' arg { index: 3 value: 'MAP_PRIVATE|MAP_ANONYMOUS' }";

TEST(LayerGuard, WhoMayNotReachAllOfRamMapsNoFileAfterStart) {
  for (const char* memory : {NONE, READ_ONLY, RANGES}) {
    for (const char* stage : {"ready", "run"}) {
      EXPECT_EQ("a:4:" + std::to_string(std::string(stage).size() + 4) +
                    ": mmap: an actor that may not reach all of guest RAM maps no file once it is "
                    "`ready`; move this rule to `start`, or let argument 3 be a `value` with "
                    "MAP_ANONYMOUS",
                errorOf(memory, rule(stage, MAP_FILE)));
      EXPECT_EQ("", errorOf(memory, rule(stage, MAP_OWN)));
    }
    EXPECT_EQ("", errorOf(memory, rule("start", MAP_FILE)));
  }
  EXPECT_EQ("", errorOf(ALL, rule("run", MAP_FILE)));
}

TEST(LayerGuard, FlagsThatMayLackMapAnonymousDoNotDo) {
  for (const char* conditions :
       {"'mmap'", "'mmap' arg { index: 3 flags: 'MAP_PRIVATE|MAP_ANONYMOUS' }",
        "'mmap' arg { index: 3 value: 'MAP_PRIVATE|MAP_ANONYMOUS' value: 'MAP_PRIVATE' }",
        "'mmap' arg { index: 3 mask: 'MAP_ANONYMOUS' value: '0' }",
        "'mmap' arg { index: 2 value: 'MAP_ANONYMOUS' }"}) {
    EXPECT_NE("", errorOf(RANGES, rule("run", conditions))) << conditions;
  }
  EXPECT_EQ("", errorOf(RANGES, rule("run",
                                     "'mmap' arg { index: 3 mask: 'MAP_ANONYMOUS' value: "
                                     "'MAP_ANONYMOUS' }")));
}

TEST(LayerGuard, RangesDoNotGrow) {
  for (const char* call : {"mremap", "remap_file_pages"}) {
    std::string text = std::string("'") + call + "'";
    EXPECT_EQ(0u, errorOf(RANGES, rule("run", text)).find("a:4:7: " + std::string(call) + ": "));
    EXPECT_EQ("", errorOf(RANGES, rule("start", text)));
    EXPECT_EQ("", errorOf(READ_ONLY, rule("run", text)));
  }
  // What fails is not made.
  EXPECT_EQ("", errorOf(RANGES, rule("run", "'mremap' fail: 'ENOSYS'")));
}

TEST(LayerGuard, ThreadsAreHeldToTheSame) {
  std::string thread = "thread { name: 't' rule { syscall: 'mremap' reason: 'x' } }";
  EXPECT_NE("", errorOf(RANGES, thread));
  EXPECT_EQ("", errorOf(ALL, thread));
}

TEST(LayerGuard, ARingIsMadeInStartAndEnteredOnlyWithOpcodes) {
  EXPECT_EQ("", errorOf(RING, rule("run", "'io_uring_enter'")));
  EXPECT_EQ(
      "a:4:7: io_uring_enter: the profile has no `io_uring { opcode: … }`, so it has no ring to "
      "enter; name the operations there, or drop this rule",
      errorOf(ALL, rule("run", "'io_uring_enter'")));
  for (const char* call : {"'io_uring_setup'", "'io_uring_register'"}) {
    EXPECT_EQ("", errorOf(RING, rule("start", call)));
    EXPECT_NE("", errorOf(RING, rule("ready", call)));
    EXPECT_NE("", errorOf(RING, rule("run", call)));
  }
}

}  // namespace
}  // namespace troupe::sandbox::testing
