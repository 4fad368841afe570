#include <capnp/message.h>
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "sandbox/fair_loop.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/user_error.h"

// A broker that somebody has taken over talks to `troupe`. The jail is off, since the one here does
// not do what its profile says.
namespace troupe {

struct SoleVm {
  static LocalVm::Starter starter() { return LocalVm::Starter(); }
};
namespace {

struct End {
  ExitCode exit;
  std::string message;
};

size_t openFds() {
  size_t count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr)
    count++;
  closedir(folder);
  return count;
}

// The folder the programs are in, with the broker replaced.
kj::String rudeCompany() {
  auto folder = kj::str(getenv("TEST_TMPDIR"), "/bin");
  auto script = kj::str("mkdir -p ", folder, " && cp -f bin/troupe-devices bin/troupe-front ",
                        folder, " && cp -f vmm/testing/rude_broker ", folder, "/troupe-broker");
  KJ_ASSERT(system(script.cStr()) == 0);
  return folder;
}

// How a VM ends whose broker behaves like that.
End meet(kj::StringPtr manner) {
  static bool captured = (kj::UnixEventPort::captureChildExit(), true);
  KJ_ASSERT(captured);
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  config.setName(kj::str("rude-", getpid()));
  config.setKernel("guest/payload/payload.elf");
  config.setMemory("64M");
  config.setCmdline(manner);
  config.setSerial(kj::str("file=", getenv("TEST_TMPDIR"), "/serial"));
  config.setJail("off");
  config.setOnReboot("exit");
  auto programs = rudeCompany();
  size_t before = openFds();
  End result = {ExitCode::POWERED_OFF, ""};
  {
    auto io = sandbox::setupFairIo();
    Stage::Choices choices;
    choices.programs = programs.asPtr();
    choices.startDeadline = 1 * kj::SECONDS;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                   auto plan = planVm(config);
                   auto files = openVmFiles(plan);
                   choices.jail = plan.jail;
                   Stage stage(io, choices);
                   LocalVm vm(SoleVm::starter(), io, stage, {kj::mv(plan), kj::mv(files), {}});
                   auto end = vm.onEnd().wait(io.waitScope);
                   result = {end.exit, end.message.cStr()};
                 })) {
      auto status = toStatus(*exception);
      result = {exitCodeOf(status), std::string(status.message())};
    }
  }
  EXPECT_EQ(before, openFds());
  return result;
}

// Nothing that a terminal obeys, nothing endless, and only one code: the first word.
void expectDecent(const End& end, const std::string& code) {
  EXPECT_EQ(0u, end.message.find(code + ": ")) << end.message;
  EXPECT_LT(end.message.size(), 3000u);
  for (char c : end.message)
    EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << int(c);
}

TEST(HostileBroker, ALongErrorIsCutAndKeepsItsCode) {
  End end = meet("long-error");
  EXPECT_EQ(ExitCode::HOST, end.exit);
  expectDecent(end, "TRP-kvm-001");
}

TEST(HostileBroker, AnErrorWithoutACodeGetsOne) {
  End end = meet("error-without-code");
  EXPECT_EQ(ExitCode::START, end.exit);
  expectDecent(end, "TRP-run-002");
}

TEST(HostileBroker, ACodeOfAnUnknownAreaIsNotTakenOver) {
  End end = meet("unknown-code");
  EXPECT_EQ(ExitCode::START, end.exit);
  expectDecent(end, "TRP-run-002");
}

TEST(HostileBroker, SilenceEndsWithTheDeadlineAndSaysWhatIsMissing) {
  End end = meet("silent");
  EXPECT_EQ(ExitCode::START, end.exit);
  expectDecent(end, "TRP-run-003");
  EXPECT_NE(std::string::npos, end.message.find("still waiting: preparing the VM")) << end.message;
}

TEST(HostileBroker, WhoSaysLinesWithoutEndKeepsNobodyFromTheDeadline) {
  End end = meet("lines");
  EXPECT_EQ(ExitCode::START, end.exit);
  expectDecent(end, "TRP-run-003");
}

TEST(HostileBroker, BytesThatAreNoMessageEndTheVm) {
  End end = meet("garbage");
  EXPECT_EQ(ExitCode::START, end.exit) << end.message;
}

TEST(HostileBroker, AnEndOfUnknownReasonIsAFailureOfTheBroker) {
  End end = meet("unknown-end");
  EXPECT_EQ(ExitCode::BROKER_FAILED, end.exit);
  expectDecent(end, "TRP-run-005");
}

TEST(HostileBroker, TheLossOfADeviceThatIsNoneIsAFailureOfTheBroker) {
  End end = meet("unknown-device");
  EXPECT_EQ(ExitCode::BROKER_FAILED, end.exit);
  expectDecent(end, "TRP-run-005");
}

TEST(HostileBroker, ALongReportOfACrashIsCut) {
  End end = meet("long-crash");
  EXPECT_EQ(ExitCode::GUEST_CRASHED, end.exit);
  expectDecent(end, "TRP-run-006");
}

TEST(HostileBroker, AFloodOfCallsEndsTheVmAndTakesNoMemory) {
  for (kj::StringPtr manner : {"calls"_kj, "finished-calls"_kj, "late-calls"_kj}) {
    End end = meet(manner);
    EXPECT_EQ(manner.startsWith("late") ? ExitCode::BROKER_FAILED : ExitCode::START, end.exit)
        << manner.cStr() << ": " << end.message;
    rusage usage;
    KJ_SYSCALL(getrusage(RUSAGE_SELF, &usage));
    EXPECT_LT(usage.ru_maxrss, 64 << 10) << manner.cStr() << ": KiB";
  }
}

}  // namespace
}  // namespace troupe
