#include "sandbox/tool/policy_tool.h"

#include <gtest/gtest.h>

#include <random>

#include "sandbox/tool/policy_bench.h"

namespace troupe::sandbox {
namespace {

using testing::err;
using testing::File;
using testing::out;
using testing::tool;
using testing::without;

TEST(PolicyShow, IsATableOfFdsLimitsAndStages) {
  EXPECT_EQ(R"(actor tape, tape.profile

layers
  LAYER             VALUE                                    NEEDED      SOURCE
  kernel            6.1 or later                             required    built in
  namespaces        user, pid, net, mount, ipc, uts, cgroup  required    built in
  root              EMPTY                                    required    built in
  landlock          FILES                                    required    built in
  landlock          TRUNCATE                                 since 6.2   built in
  landlock          TCP                                      since 6.7   built in
  landlock          DEVICE_IOCTLS                            since 6.10  built in
  landlock          ABSTRACT_SOCKETS, SIGNALS                since 6.12  built in
  capabilities      none                                     required    built in
  mdwe              -                                        since 6.3   built in
  executable_seals  -                                        since 6.3   built in
  memory            NONE                                     required    built in
  io_uring          none                                     required    built in
  restart           NEVER                                    -           built in

fds
  NUMBER  NAME  KIND     FROM    NOTE      SOURCE
  16      reel  file     handed  -         tape.profile:3
  20-23   kick  eventfd  placed  optional  tape.profile:4

limits
  LIMIT  VALUE
  AS     65536

run: 4 system calls, 3 with conditions; budget 4, at most 1 without
  CALL                 CONDITIONS                                 REASON                               SOURCE
  brk                  -                                          the heap                             shared.profile:2
  clone3 fails ENOSYS  -                                          glibc then uses clone                built in
  mmap                 prot within PROT_READ|PROT_WRITE, flags =  blocks (narrowed by tape.profile:9)  shared.profile:3
                       MAP_PRIVATE|MAP_ANONYMOUS
  pread64              fd = reel, count at most 512               reads                                tape.profile:10
  read                 fd = kick                                  notifications                        tape.profile:11
  uname fails ENOSYS   -                                          a library asks                       tape.profile:12

ready: 5 system calls, 4 with conditions
  All of run, and:
  CALL     CONDITIONS                                         REASON                        SOURCE
  mmap     prot within PROT_READ|PROT_WRITE                   blocks                        shared.profile:3
  seccomp  operation = SECCOMP_SET_MODE_FILTER, flags within  the next filter is installed  built in
           SECCOMP_FILTER_FLAG_TSYNC

thread:spool: 1 system calls, 0 with conditions; budget 1, at most 1 without
  CALL                 CONDITIONS  REASON                 SOURCE
  clone3 fails ENOSYS  -           glibc then uses clone  built in
  exit                 -           its end                tape.profile:16

start: 8 system calls, 6 with conditions
  All of ready and thread:spool, and:
  CALL      CONDITIONS                    REASON              SOURCE
  execveat  dirfd = the program's fd, 36  the program begins  built in
  fstat     fd = reel                     its size            tape.profile:6
)",
            out({"show", "tape"}));
}

TEST(PolicyShow, JsonHasEveryStageComplete) {
  std::string json = out({"show", "tape", "--json"});
  EXPECT_EQ(0u,
            json.find(R"({"actor":"tape","profile":"tape.profile","layers":[{"layer":"kernel",)"));
  EXPECT_NE(std::string::npos,
            json.find(R"({"layer":"landlock","value":"TCP","needed":"since 6.7",)"
                      R"("source":"built in"})"));
  EXPECT_NE(std::string::npos, json.find(R"("fds":[{"name":"reel",)"));
  EXPECT_NE(std::string::npos, json.find(R"({"stage":"start","syscalls":8,"unconditional":2,)"));
  EXPECT_NE(std::string::npos,
            json.find(R"({"syscall":"pread64","arguments":[{"index":0,"name":"fd","condition":)"
                      R"("= reel","fds":["reel"]},{"index":2,"name":"count","condition":)"
                      R"("at most 512","fds":[]}],"reason":"reads","stage":"run","source":)"
                      R"("tape.profile:10:3","narrowedBy":[]})"));
}

TEST(PolicyJson, EveryCommandHasIt) {
  std::string same = out({"diff", "tape", "tape", "--json"});
  EXPECT_EQ(same, R"({"before":"tape.profile","after":"tape.profile","difference":""})"
                  "\n");
  EXPECT_EQ(0u, out({"diff", "tape", "disc", "--json"}).find(R"({"before":"tape.profile",)"));
  EXPECT_EQ(0u, out({"explain", "tape", "run", "pread64", "reel", "_", "512", "--json"})
                    .find(R"([{"stage":"run","text":"tape, run: pread64()"));
  std::string checked = out({"check", "tape", "--json"});
  EXPECT_EQ('[', checked.front());
  EXPECT_EQ(']', checked[checked.size() - 2]);
}

TEST(PolicyBudget, CountsCallsBesideTheirBudgets) {
  EXPECT_EQ(R"(  ACTOR  STAGE         CALLS  BUDGET  WITH CONDITIONS  WITHOUT  BUDGET
  disc   start         6      -       5                1        -
  disc   ready         4      -       3                1        -
  disc   run           4      -       3                1        -
  tape   start         8      -       6                2        -
  tape   ready         5      -       4                1        -
  tape   run           4      4       3                1        1
  tape   thread:spool  1      1       0                1        1
)",
            out({"budget"}));
  EXPECT_EQ(R"([{"actor":"disc","stage":"start","syscalls":6,"conditional":5,"unconditional":1},)"
            R"({"actor":"disc","stage":"ready","syscalls":4,"conditional":3,"unconditional":1},)"
            R"({"actor":"disc","stage":"run","syscalls":4,"conditional":3,"unconditional":1}])"
            "\n",
            out({"budget", "disc", "--json"}));
}

TEST(PolicyExplain, NamesTheLineThatAllows) {
  EXPECT_EQ(
      "tape, run: pread64(fd = reel (16), buf = anything, count = 512): allowed\n"
      "  by tape.profile:10: pread64 fd = reel, count at most 512  # reads\n",
      out({"explain", "tape", "run", "pread64", "reel", "_", "512"}));
}

TEST(PolicyExplain, SaysWhyNotAndWhatWouldAllowIt) {
  EXPECT_EQ(
      "tape, run: pread64(fd = kick[3] (23), buf = anything, count = 513): refused, kills "
      "the process\n"
      "  not by tape.profile:10: pread64 fd = reel, count at most 512  # reads\n"
      "      fd is kick[3], the rule wants it = reel\n"
      "      count is 513, the rule wants it at most 512\n"
      "  this would allow it:\n"
      "      run { rule { syscall: \"pread64\" fd: \"kick\" arg { index: 2 value: \"513\" } "
      "reason: \"...\" } }\n",
      out({"explain", "tape", "run", "pread64", "kick[3]", "_", "513"}));
  EXPECT_EQ(
      "tape, run: fstat(fd = reel (16)): refused, kills the process\n"
      "  no rule of run names fstat\n"
      "  allowed in: start\n"
      "  this would allow it:\n"
      "      run { rule { syscall: \"fstat\" fd: \"reel\" reason: \"...\" } }\n",
      out({"explain", "tape", "run", "fstat", "reel"}));
  EXPECT_EQ(
      "tape, thread:spool: openat(): refused, kills the process\n"
      "  no rule of thread:spool names openat\n"
      "  no profile may allow it once its actor serves\n",
      out({"explain", "tape", "thread:spool", "openat"}));
}

TEST(PolicyExplain, SaysWhatAnAnswerDependsOn) {
  EXPECT_EQ(
      "tape, run: read(): allowed when the other arguments meet one of\n"
      "  tape.profile:11: read fd = kick  # notifications\n",
      out({"explain", "tape", "run", "read"}));
}

TEST(PolicyExplain, CallThatFailsIsNotMade) {
  EXPECT_EQ(
      "tape, run: uname(): not made; it fails with ENOSYS\n"
      "  by tape.profile:12: uname fails ENOSYS -  # a library asks\n",
      out({"explain", "tape", "run", "63"}));
}

TEST(PolicyExplain, WithoutAStageSpeaksOfEach) {
  std::string text = out({"explain", "tape", "fstat", "16"});
  EXPECT_EQ(0u, text.find("tape, start: fstat(fd = 16): allowed\n"));
  for (const char* stage : {"tape, ready: ", "tape, run: ", "tape, thread:spool: "})
    EXPECT_NE(std::string::npos, text.find(stage));
}

TEST(PolicyTool, ProfileOfAFolderGoesBeforeTheOneBuiltIn) {
  File file("actor: 'tape' run { rule { syscall: 'uname' reason: 'mine' } }", "tape.profile");
  std::string folder = file.path.substr(0, file.path.rfind('/'));
  EXPECT_NE(std::string::npos, out({"show", "tape", "--profile-dir", folder}).find(file.path));
  EXPECT_EQ(out({"show", "disc"}), out({"show", "disc", "--profile-dir", folder}));
  EXPECT_NE(std::string::npos,
            out({"explain", "tape", "run", "uname", "--profile-dir=" + folder}).find("allowed"));
  std::ofstream(file.path) << "actor: 'tape' run { rule { syscall: 'unam' reason: 'mine' } }";
  ToolResult result = tool({"check", "--profile-dir", folder});
  EXPECT_EQ(2, result.exit);
  EXPECT_EQ(0u, result.out.find(file.path + ":1:")) << result.out;
}

TEST(PolicyTool, FolderWithoutProfilesIsAnError) {
  File file("", "README");
  std::string folder = file.path.substr(0, file.path.rfind('/'));
  EXPECT_EQ(0u, err({"check", "--profile-dir", folder}).find("troupe: TRP-cfg-033: "));
  EXPECT_EQ(0u, err({"show", "tape", "--profile-dir", file.path}).find("troupe: TRP-cfg-0"));
}

TEST(PolicyImport, TakesOverWhatCanBeSaidAndNamesTheRest) {
  File file(R"(# a comment
@default kill-process
read: 1
write: allow
openat: return ENOENT
ioctl: arg1 == BLKGETSIZE64 || arg1 == TCGETS
mmap: arg2 in ~PROT_EXEC
prctl: arg0 == PR_SET_NAME; return 1
clone: arg0 & CLONE_THREAD
socket: arg0 == AF_UNIX
getrandom: arg1 <= 256 && arg2 == 0
madvise: arg2 == \
  MADV_DONTNEED
futex: kill
fcntl: arg1 != F_SETFL
ioctl: arg1 & 0x10
lseek[arch=arm]: 1
)",
            "blk-device.policy");
  ToolResult result = tool({"import", file.path});
  EXPECT_EQ(0, result.exit);
  EXPECT_EQ("troupe: 2 lines were left out; the profile's comments say why\n", result.err);
  EXPECT_EQ(
      R"(# Imported from the minijail policy . Still to be said: the fds and which rule is about
# which, what only `start` needs, and the reasons.
actor: "blk-device"
# :15: not taken over: fcntl: arg1 != F_SETFL
#   the comparison "!=" does not exist in profiles
# :16: not taken over: ioctl: arg1 & 0x10
#   ioctls are named one by one, and this is no "=="

start {
  rule { syscall: "socket" arg { index: 0 value: "AF_UNIX" } reason: "imported, line 10" }
}

run {
  rule { syscall: "read" reason: "imported, line 3" }
  rule { syscall: "write" reason: "imported, line 4" }
  rule { syscall: "openat" fail: "ENOENT" reason: "imported, line 5" }
  rule { syscall: "ioctl" arg { index: 1 value: "BLKGETSIZE64" value: "TCGETS" } reason: "imported, line 6" }
  rule { syscall: "mmap" arg { index: 2 flags: "0xfffffffffffffffb" } reason: "imported, line 7" }
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_NAME" } reason: "imported, line 8" }
  rule { syscall: "prctl" fail: "EPERM" reason: "imported, line 8" }
  rule { syscall: "clone" arg { index: 0 mask: "CLONE_THREAD" value: "CLONE_THREAD" } reason: "imported, line 9" }
  rule { syscall: "getrandom" arg { index: 1 at_most: "256" } arg { index: 2 value: "0" } reason: "imported, line 11" }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTNEED" } reason: "imported, line 12" }
}
)",
      without(result.out, file.path));
  File imported(result.out);
  EXPECT_EQ(0, tool({"check", imported.path}).exit);
}

// Whatever the file holds, what comes out is a profile, or there is one error.
TEST(PolicyImport, GarbageNeverMakesABrokenProfile) {
  const char* const pieces[] = {"read",   "ioctl", "mmap",   ": ",   "1",
                                "arg0",   "arg1",  " == ",   "|",    " || ",
                                " && ",   " in",   " & ",    "~",    "0x7f",
                                "077",    "; ",    "return", " 1",   "\n",
                                "\n",     "@",     "\"",     "\\\n", "TCGETS",
                                "openat", "[arch", "\x80",   " <= ", "99999999999999999999"};
  std::mt19937 random(1);
  for (int round = 0; round < 100; round++) {
    std::string text = "read: 1\n";
    for (int i = 0; i < 60; i++)
      text += pieces[random() % (sizeof(pieces) / sizeof(*pieces))];
    File file(text);
    ToolResult result = tool({"import", file.path});
    ASSERT_EQ(0, result.exit) << text << result.err;
    File imported(result.out);
    ASSERT_EQ(0, tool({"check", imported.path}).exit)
        << text << result.out << tool({"check", imported.path}).out;
  }
}

TEST(PolicyTool, EachWrongUseIsOneErrorWithACode) {
  auto is = [](const std::vector<std::string>& words, const std::string& text) {
    std::string error = err(words);
    EXPECT_EQ("troupe: " + text, error.substr(0, 8 + text.size()));
    EXPECT_LE(std::count(error.begin(), error.end(), '\n'), 2) << error;
  };
  is({}, "TRP-cfg-004: no command is given");
  is({"shwo"}, "TRP-cfg-001: there is no command \"shwo\"; did you mean show?");
  is({"show"}, "TRP-cfg-004: too few arguments: troupe policy show ACTOR");
  is({"show", "tape", "disc"}, "TRP-cfg-004: too many arguments");
  is({"show", "tpae"}, "TRP-cfg-006: there is no actor \"tpae\"; did you mean tape?; there are");
  is({"show", "\x1b[2J"}, "TRP-cfg-006: there is no actor \"\\x1b[2J\"");
  is({"show", "tape", "--jsno"}, "TRP-cfg-002: there is no option \"--jsno\"");
  is({"show", "tape", "--includes"}, "TRP-cfg-003: --includes needs the path of a folder");
  is({"explain", "tape"}, "TRP-cfg-004: too few arguments");
  is({"explain", "tape", "run"}, "TRP-cfg-004: too few arguments");
  is({"explain", "disc", "thread:spool", "read"}, "TRP-cfg-006: disc has no stage");
  is({"explain", "tape", "raed"},
     "TRP-cfg-006: x86_64 has no system call \"raed\"; did you mean read?");
  is({"explain", "tape", "9999"}, "TRP-cfg-006: x86_64 has no system call of the number 9999");
  is({"explain", "tape", "read", "rele"}, "TRP-cfg-006: there is no constant \"rele\"");
  is({"explain", "tape", "read", "kick[4]"}, "TRP-cfg-006: fd \"kick\" has the indices 0 to 3");
  is({"explain", "tape", "read", "1", "2", "3", "4", "5", "6", "7"}, "TRP-cfg-004: ");
  is({"import", "/nowhere/x"}, "TRP-cfg-111: there is no file \"/nowhere/x\"");
  is({"import", "/"}, "TRP-cfg-111: \"/\" cannot be read");
  is({"import", "/dev/zero"}, "TRP-cfg-111: \"/dev/zero\" is longer than 262144 bytes");
}

TEST(PolicyTool, ProfileWithErrorsIsShownByNoCommand) {
  File file("actor: 'a' run { rule { syscall: 'raed' reason: 'x' } }");
  EXPECT_EQ(
      ":1:25: x86_64 has no system call \"raed\"; names are as in the manual's section 2\n"
      "troupe: TRP-cfg-110: profile \"\" has 1 error\n",
      without(err({"show", file.path}), file.path));
}

}  // namespace
}  // namespace troupe::sandbox
