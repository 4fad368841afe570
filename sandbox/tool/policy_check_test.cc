// `troupe policy check` and `diff`.
#include <gtest/gtest.h>

#include "sandbox/tool/policy_bench.h"

namespace troupe::sandbox {
namespace {

using testing::File;
using testing::out;
using testing::TAPE;
using testing::tool;
using testing::without;

TEST(PolicyDiff, ShowsWhatIsGainedAndLostPerStage) {
  EXPECT_EQ(R"(- tape, tape.profile
+ disc, disc.profile
fds
     NAME  WHAT
  -  kick  eventfd 20-23, placed, optional
  -  reel  file 16, handed
  +  arm   pipe 18, handed
  +  reel  file 17, handed
limits
     NAME  WHAT
  -  AS    65536
start
     CALL                CONDITIONS                     REASON          SOURCE
  -  exit                -                              its end         tape.profile:16
  -  fstat               fd = reel                      its size        tape.profile:6
  -  read                fd = kick                      notifications   tape.profile:11
  -  uname fails ENOSYS  -                              a library asks  tape.profile:12
  +  pread64             fd = reel, count at most 1024  reads           disc.profile:6
  +  write               fd = arm                       moves           disc.profile:7
ready
     CALL                CONDITIONS                     REASON          SOURCE
  -  read                fd = kick                      notifications   tape.profile:11
  -  uname fails ENOSYS  -                              a library asks  tape.profile:12
  +  pread64             fd = reel, count at most 1024  reads           disc.profile:6
  +  write               fd = arm                       moves           disc.profile:7
run
     CALL                CONDITIONS                        REASON          SOURCE
  -  read                fd = kick                         notifications   tape.profile:11
  -  uname fails ENOSYS  -                                 a library asks  tape.profile:12
  +  mmap                prot within PROT_READ|PROT_WRITE  blocks          shared.profile:3
  +  pread64             fd = reel, count at most 1024     reads           disc.profile:6
  +  write               fd = arm                          moves           disc.profile:7
thread:spool
     CALL  CONDITIONS  REASON   SOURCE
  -  exit  -           its end  tape.profile:16
)",
            out({"diff", "tape", "disc"}));
}

TEST(PolicyDiff, OfThePolicyWithItselfIsEmpty) {
  EXPECT_EQ("no difference\n", out({"diff", "tape", "tape"}));
}

TEST(PolicyDiff, ShowsALayerThatIsLost) {
  File file(std::string(TAPE) +
            "mdwe { off: 'x' }\ncapability { name: 'NET_ADMIN' reason: 'x' }\n");
  std::string text = out({"diff", "tape", file.path});
  size_t begin = text.find("layers\n");
  ASSERT_NE(std::string::npos, begin);
  EXPECT_EQ(R"(layers
     NAME                     WHAT
  -  capabilities none        required
  -  mdwe                     since 6.3
  +  capability NET_ADMIN: x  -
  +  mdwe                     off
)",
            text.substr(begin));
}

TEST(PolicyDiff, FdThatMovesChangesNoRule) {
  std::string moved = TAPE;
  moved.replace(moved.find("number: 16"), 10, "number: 31");
  File file(moved);
  std::string text = out({"diff", "tape", file.path});
  EXPECT_NE(std::string::npos, text.find("+  reel  file 31, handed"));
  EXPECT_EQ(std::string::npos, text.find("run\n"));
}

TEST(PolicyDiff, SameCallsInOtherWordsAreNoDifference) {
  auto profile = [](const std::string& rules) { return "actor: 'a' run { " + rules + " }"; };
  File one(profile("rule { syscall: 'mmap' arg { index: 2 flags: '3' } reason: 'x' }"));
  File other(
      profile("rule { syscall: 'mmap' arg { index: 2 value: '0' value: '1' } reason: 'x' }"
              "rule { syscall: 'mmap' arg { index: 2 value: '2' value: '3' } reason: 'x' }"));
  EXPECT_EQ("no difference\n", out({"diff", one.path, other.path}));
  File wider(profile("rule { syscall: 'mmap' arg { index: 2 flags: '7' } reason: 'x' }"));
  EXPECT_NE(std::string::npos, out({"diff", one.path, wider.path}).find("+  mmap"));
  EXPECT_EQ(std::string::npos, out({"diff", one.path, wider.path}).find("-  mmap"));
}

TEST(PolicyCheck, FindsEveryMistakeWithItsPlace) {
  File file(
      "actor: 'a'\nrun {\n  rule { syscall: 'raed' reason: 'x' }\n  rule { syscall: 'read' }\n"
      "}\n");
  ToolResult result = tool({"check", file.path});
  EXPECT_EQ(2, result.exit);
  EXPECT_EQ(
      ":3:10: error: x86_64 has no system call \"raed\"; names are as in the manual's section "
      "2\n"
      ":4:3: error: the rule for read has no `reason`; say who needs it, and for what\n"
      "2 errors, 0 warnings\n",
      without(result.out, file.path));
}

TEST(PolicyCheck, FiltersTooLongForTheKernelAreAnErrorOfTheirLongestRule) {
  std::string values;
  for (int i = 0; i < 1000; i++)
    values += " value: '" + std::to_string(i * 0x100000001) + "'";
  File file(
      "actor: 'a'\nrun {\n  rule { syscall: 'read' reason: 'x' }\n  rule { syscall: 'lseek' arg { "
      "index: 1" +
      values + " } reason: 'x' }\n}\n");
  ToolResult result = tool({"check", file.path});
  EXPECT_EQ(2, result.exit);
  std::string text = without(result.out, file.path);
  EXPECT_EQ(0u, text.find(":4:3: error: the filter of start would have ")) << text;
  EXPECT_NE(std::string::npos, text.find("1 error, 0 warnings")) << text;
}

// libseccomp made something else of both.
TEST(PolicyCheck, SeveralSizesOfOneCallAndACallThatElseFailsAreRight) {
  File file(
      "actor: 'a'\n"
      "fd { name: 'x' number: 16 kind: FILE }\n"
      "run {\n"
      "  rule { syscall: 'pread64' fd: 'x' arg { index: 2 at_most: '512' } reason: 'x' }\n"
      "  rule { syscall: 'pread64' arg { index: 2 at_most: '16' } arg { index: 3 at_most: "
      "'0x100000000' } reason: 'x' }\n"
      "  rule { syscall: 'prctl' arg { index: 0 value: 'PR_SET_NAME' } reason: 'x' }\n"
      "  rule { syscall: 'prctl' fail: 'EPERM' reason: 'x' }\n"
      "}\n"
      "budget { filter: 'run' syscalls: 9 unconditional: 9 }\n");
  EXPECT_EQ("0 errors, 0 warnings\n", out({"check", file.path}));
}

TEST(PolicyCheck, WarnsOfWhatIsIdleOrUnused) {
  File file(
      "actor: 'a'\n"
      "fd { name: 'x' number: 16 kind: FILE }\n"
      "fd { name: 'y' number: 17 kind: FILE }\n"
      "include: 'shared.profile'\n"
      "run {\n"
      "  rule { syscall: 'brk' reason: 'x' }\n"
      "  rule { syscall: 'read' fd: 'x' reason: 'x' }\n"
      "  rule { syscall: 'read' reason: 'x' }\n"
      "}\n"
      "budget { filter: 'run' syscalls: 9 unconditional: 9 }\n");
  EXPECT_EQ(
      ":3:1: warning: no rule names fd \"y\"; unless it is only waited for, name it in the rules "
      "that use it, or drop it\n"
      ":6:10: warning: brk is allowed by shared.profile:2 already (-); drop it here\n"
      ":7:10: warning: read is allowed by :8 already (-); drop it here\n"
      "0 errors, 3 warnings\n",
      without(out({"check", file.path}), file.path));
}

TEST(PolicyCheck, OwnFolderGoesBeforeWhatIsBuiltIn) {
  File file("actor: 'a' include: 'shared.profile' run { rule { syscall: 'read' reason: 'x' } }");
  std::string folder = file.path.substr(0, file.path.rfind('/'));
  EXPECT_NE(std::string::npos, out({"show", file.path}).find("the heap"));
  std::ofstream(folder + "/shared.profile") << "run { rule { syscall: 'uname' reason: 'mine' } }";
  EXPECT_NE(std::string::npos, out({"show", file.path, "--includes", folder}).find("mine"));
}

}  // namespace
}  // namespace troupe::sandbox
