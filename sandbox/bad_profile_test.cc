// What can be wrong with a profile, one test each: the whole error, with its place and what to do.

#include <gtest/gtest.h>
#include <seccomp.h>

#include <string>
#include <vector>

#include "sandbox/testing/profile_tree.h"
#include "sandbox/verdict_sets.h"

namespace troupe::sandbox::testing {
namespace {

// Lines 1 and 2 of each profile.
constexpr char ACTOR[] =
    "actor: 'a'\n"
    "fd { name: 'disk' number: 16 kind: FILE }\n";

std::string errorOf(const std::string& text) {
  return ProfileTree().add("a", ACTOR + text).error("a");
}

// Of a file that has only this content.
std::string errorOfFile(const std::string& content) {
  return ProfileTree().add("a", content).error("a");
}

TEST(BadProfile, UnknownKey) {
  EXPECT_EQ(
      "a:3:14: there is no key \"syscal\" here; there are syscall, fd, arg, fail and reason; the "
      "nearest is syscall",
      errorOf("run { rule { syscal: 'read' reason: 'x' } }"));
}

TEST(BadProfile, ValueOfAnotherType) {
  EXPECT_EQ("a:3:35: Expected integer, got: \"nine\"; numbers stand without quotes",
            errorOf("fd { name: 'x' kind: FILE number: \"nine\" }").substr(0, 74));
}

TEST(BadProfile, UnknownSystemCall) {
  EXPECT_EQ("a:3:14: x86_64 has no system call \"raed\"; names are as in the manual's section 2",
            errorOf("run { rule { syscall: 'raed' reason: 'x' } }"));
}

TEST(BadProfile, DuplicateRule) {
  EXPECT_EQ("a:4:8: the same rule for read stands at a:3:7; keep one of them",
            errorOf("run { rule { syscall: 'read' fd: 'disk' reason: 'x' }\n"
                    "rule { syscall: 'read' arg { index: 0 fd: 'disk' } reason: 'y' } }"));
}

TEST(BadProfile, ImpossibleCondition) {
  EXPECT_EQ("a:3:57: can never be: the value has bits outside of `mask`",
            errorOf("run { rule { syscall: 'mmap' arg { index: 2 mask: '0x1' value: '0x2' } "
                    "reason: 'x' } }"));
}

TEST(BadProfile, ConditionOnAnFdThatIsClosedByThen) {
  EXPECT_EQ(
      "a:4:30: can never be: fd \"ram\" is closed once the actor is ready, and its number may be "
      "another's then; `start` may have it",
      errorOf("fd { name: 'ram' number: 17 kind: MEMFD closed: true }\n"
              "run { rule { syscall: 'read' fd: 'ram' reason: 'x' } }"));
}

TEST(BadProfile, MissingInclude) {
  EXPECT_EQ(
      "a:3:1: there is no \"common/acter.profile\"; includes are named from the root of the tree, "
      "and a file of your own is listed in `includes` of actor_profile",
      errorOf("include: 'common/acter.profile'"));
}

TEST(BadProfile, IncludeLoop) {
  ProfileTree tree;
  tree.add("a", ACTOR + std::string("include: 'b'"));
  tree.add("b", "include: 'c'").add("c", "\n  include: 'b'");
  EXPECT_EQ("c:2:3: \"b\" includes itself through this line; drop one include of the loop",
            tree.error("a"));
}

// What a later stage allows an earlier one allows too, so that only this can be asked for.
TEST(BadProfile, StageThatWidens) {
  EXPECT_EQ("a:3:14: openat is never allowed once an actor is ready; `start` may have it",
            errorOf("run { rule { syscall: 'openat' reason: 'x' } }"));
}

PolicyFilter filter(const std::string& stage, std::vector<PolicyArgument> arguments) {
  PolicyRule rule = {stage, {"a", 7, 3}, {"a", 7, 10}, "read", SCMP_SYS(read), std::move(arguments),
                     0,     "",          "x",          {}};
  return {stage, verdictsOf({rule}), {rule}};
}

PolicyArgument atMost(uint64_t value) {
  return {2, "", {}, {{2, Condition::AT_MOST, 0, value}}};
}

PolicyArgument equals(uint64_t value) {
  return {2, "", {}, {{2, Condition::MASKED_EQUAL, ~uint64_t{0}, value}}};
}

// And should the compiler ever make one, it does not come out of it.
TEST(BadProfile, FilterThatWidens) {
  auto ready = filter("ready", {atMost(16)});
  requireNested(ready, filter("run", {atMost(16)}));
  requireNested(ready, filter("run", {equals(16)}));
  for (auto& wider :
       {filter("run", {}), filter("run", {atMost(17)}), filter("run", {equals(17)})}) {
    try {
      requireNested(ready, wider);
      ADD_FAILURE();
    } catch (const ProfileError& error) {
      EXPECT_STREQ(
          "a:7:3: run allows read where ready does not, and stages only narrow; write the rule in "
          "ready too, or narrow it here",
          error.what());
    }
  }
}

TEST(BadProfile, LayerWhereOnlyAThreadIncludesIt) {
  ProfileTree tree;
  tree.add("b",
           "run { rule { syscall: 'exit' reason: 'x' } }\nlimit { resource: 'AS' value: 4096 }");
  tree.add("a", ACTOR + std::string("thread { name: 'q' include: 'b' }"));
  EXPECT_EQ(
      "b:2:1: a thread takes only the `run` rules of its includes, and nothing else includes this "
      "file: `limit` has no effect; include the file in a itself, too, or drop it here",
      tree.error("a"));
  tree.add("a", ACTOR + std::string("include: 'b' thread { name: 'q' include: 'b' }"));
  EXPECT_EQ("", tree.error("a"));
}

TEST(BadProfile, BudgetExceeded) {
  EXPECT_EQ("a:4:1: run lets 2 system calls through, and its budget is 1: brk, read",
            errorOf("run { rule { syscall: 'read' syscall: 'brk' reason: 'x' } }\n"
                    "budget { filter: 'run' syscalls: 1 unconditional: 2 }"));
}

TEST(BadProfile, LimitThatLeavesAnFdNoPlace) {
  EXPECT_EQ(
      "a:3:28: NOFILE is 35, and fd \"kick\" has numbers up to 35; leave the limit out, and it is "
      "what the fds need",
      errorOf("limit { resource: 'NOFILE' value: 35 }\n"
              "fd { name: 'kick' number: 32 count: 4 kind: EVENTFD from: PLACED }"));
  EXPECT_EQ("", errorOf("limit { resource: 'NOFILE' value: 36 }\n"
                        "fd { name: 'kick' number: 32 count: 4 kind: EVENTFD from: PLACED }"));
}

TEST(BadProfile, WrongEncoding) {
  EXPECT_EQ("a:1:1: is UTF-16; a profile is plain ASCII text: save it as such",
            errorOfFile(std::string("\xff\xfe") + std::string("a\0c\0", 4)));
  EXPECT_EQ("a:1:1: a profile is plain ASCII text, and here is a byte 0xef: save it as ASCII",
            errorOfFile("\xef\xbb\xbf"
                        "actor: 'a'"));
  EXPECT_EQ("a:3:30: a profile is plain ASCII text, and here is a byte 0xc3: save it as ASCII",
            errorOf("run { rule { syscall: 'read' \xc3\xa9 } }"));
  EXPECT_EQ("a:3:1: a profile is plain ASCII text, and here is a byte 0x00: save it as ASCII",
            errorOf(std::string("\0", 1)));
}

TEST(BadProfile, TenMegabytesOfGarbage) {
  std::string bytes, text;
  unsigned seed = 1;
  for (int i = 0; i < 10 << 20; i++) {
    seed = seed * 1103515245 + 12345;
    bytes.push_back(seed >> 16);
    text.push_back("actor:{}'\"include fd rule \n#0x9"[seed / 65536 % 31]);
  }
  for (const std::string& garbage : {bytes, text, std::string(10 << 20, '{')}) {
    EXPECT_EQ("a:1:1: is longer than 262144 bytes; a profile is a text of a few pages",
              errorOfFile(garbage));
    // As much of it as is read.
    PolicyReading reading =
        ProfileTree().add("a", garbage.substr(0, MAX_PROFILE_BYTES)).examine("a");
    EXPECT_EQ(1u, reading.errors.size());
    EXPECT_EQ("a", reading.errors[0].where.file);
    EXPECT_GT(reading.errors[0].where.line, 0);
  }
}

TEST(BadProfile, BitTestOnAnIoctl) {
  const std::string error =
      "a:3:31: the bits of an ioctl's number have no meaning of their own, nor has its size; "
      "ioctls "
      "are named one by one: value: \"KVM_RUN\"";
  for (const char* condition :
       {"mask: '0xff' value: '0x1'", "flags: '0x1'", "at_most: '0x1277'", "fd: 'disk'"}) {
    EXPECT_EQ(error, errorOf("run { rule { syscall: 'ioctl' arg { index: 1 " +
                             std::string(condition) + " } reason: 'x' } }"))
        << condition;
  }
}

TEST(BadProfile, IoctlWithoutItsName) {
  EXPECT_EQ("a:3:14: ioctls are named one by one: arg { index: 1 value: \"KVM_RUN\" }",
            errorOf("run { rule { syscall: 'ioctl' fd: 'disk' reason: 'x' } }"));
  EXPECT_EQ(
      "a:3:46: there is no constant \"BLKDISCRAD\" among those that profiles may name; the nearest "
      "is "
      "BLKDISCARD",
      errorOf(
          "run { rule { syscall: 'ioctl' arg { index: 1 value: 'BLKDISCRAD' } reason: 'x' } }"));
}

}  // namespace
}  // namespace troupe::sandbox::testing
