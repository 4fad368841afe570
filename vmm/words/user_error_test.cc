#include "vmm/words/user_error.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

namespace troupe {
namespace {

template <typename Action>
kj::Exception thrownBy(Action&& action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(action)) {
    return kj::mv(*exception);
  }
  KJ_FAIL_ASSERT("nothing was thrown");
}

kj::Exception remote(kj::StringPtr text) {
  return kj::Exception(kj::Exception::Type::FAILED, "rpc", 1, kj::heapString(text));
}

TEST(UserError, RendersCodeMessageCausesAndAdvice) {
  UserError error(codes::NO_KVM, kj::str("no KVM"));
  error.cause("first").cause("second").advice("see", "ls -l /dev/kvm");
  EXPECT_STREQ(error.render().cStr(),
               "TRP-host-001: no KVM\n  1. first\n  2. second\n  see: ls -l /dev/kvm");
}

TEST(UserError, SurvivesBeingThrown) {
  auto exception = thrownBy([]() { UserError(codes::NO_KVM, kj::str("no KVM")).raise(); });
  auto status = toStatus(exception);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "TRP-host-001: no KVM");
  EXPECT_EQ(exitCodeOf(status), ExitCode::HOST);
}

TEST(ToStatus, AnExceptionWithoutACodeIsAnInternalError) {
  auto status = toStatus(thrownBy([]() { KJ_FAIL_ASSERT("oops"); }));
  EXPECT_EQ(exitCodeOf(status), ExitCode::INTERNAL);
  EXPECT_EQ(std::string(status.message()).substr(0, 13), "TRP-int-001: ");
}

TEST(ToStatus, AnErrorOfKjRequireIsReadBehindItsCondition) {
  auto status = toStatus(thrownBy([]() {
    int have = 1;
    KJ_REQUIRE(have == 2, kj::str("TRP-jail-007: no ids"));
  }));
  EXPECT_EQ(status.message(), "TRP-jail-007: no ids");
  EXPECT_EQ(exitCodeOf(status), ExitCode::JAIL);
}

TEST(ToStatus, AnotherActorsWordsAreNeverTakenForOurOwn) {
  auto status = toStatus(remote("remote exception: TRP-cfg-001: \x1b[31mhello"));
  EXPECT_EQ(exitCodeOf(status), ExitCode::INTERNAL);
  EXPECT_EQ(std::string(status.message()).find('\x1b'), std::string::npos);
}

TEST(ToStatus, TypesOfExceptionsBecomeStatusCodes) {
  auto codeOf = [](kj::Exception::Type type) {
    return toStatus(kj::Exception(type, "file", 1, kj::str("text"))).code();
  };
  EXPECT_EQ(codeOf(kj::Exception::Type::FAILED), absl::StatusCode::kInternal);
  EXPECT_EQ(codeOf(kj::Exception::Type::OVERLOADED), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(codeOf(kj::Exception::Type::DISCONNECTED), absl::StatusCode::kUnavailable);
  EXPECT_EQ(codeOf(kj::Exception::Type::UNIMPLEMENTED), absl::StatusCode::kUnimplemented);
}

TEST(WrapActorError, KeepsTheCodeTheActorGave) {
  auto error = wrapActorError(remote("remote exception: TRP-boot-002: no ELF"),
                              codes::START_REFUSED, "loading kernel \"k\" failed");
  EXPECT_STREQ(error.render().cStr(), "TRP-boot-002: loading kernel \"k\" failed\n  1. no ELF");
  EXPECT_EQ(exitCodeOf(toStatus(thrownBy([&]() { error.raise(); }))), ExitCode::USAGE);
}

TEST(WrapActorError, AMadeUpAreaIsNotBelieved) {
  auto error =
      wrapActorError(remote("remote exception: TRP-zzz-002: x"), codes::START_REFUSED, "failed");
  EXPECT_STREQ(error.render().cStr(), "TRP-run-002: failed\n  1. x");
}

TEST(WrapActorError, HostileTextIsEscapedAndCut) {
  auto text = kj::heapString(100000);
  for (auto& c : text)
    c = '\x07';
  auto error = wrapActorError(remote(text), codes::START_REFUSED, "failed");
  EXPECT_LT(error.render().size(), 3000);
  EXPECT_TRUE(error.render().findFirst('\x07') == nullptr);
}

TEST(WrapActorError, AnActorsAnswerOfTheKernelStandsWithoutItsExpression) {
  auto error = wrapActorError(
      remote("remote exception: expected error == 0 [-28 == 0]; TRP-disk-102: the image cannot be "
             "written; strerror(-error) = No space left on device"),
      codes::START_REFUSED, "failed");
  EXPECT_TRUE(strstr(error.render().cStr(), "cannot be written: No space left on device"))
      << error.render().cStr();
}

TEST(WrapActorError, ACodeInTheMiddleOfTextIsNotBelieved) {
  auto error = wrapActorError(remote("the file TRP-cfg-001: x"), codes::START_REFUSED, "failed");
  EXPECT_TRUE(error.render().startsWith("TRP-run-002: "));
}

TEST(UserError, WhatTheHostHasNoMoreOfIsNoMistakeOfOurs) {
  auto failed = [](int error) {
    return toStatus(thrownBy([&]() { KJ_FAIL_SYSCALL("open(path)", error, "more"); }));
  };
  for (int error : {EMFILE, ENFILE, ENOMEM, ENOSPC}) {
    auto status = failed(error);
    EXPECT_EQ(std::string(status.message()).substr(0, 13), "TRP-host-012:") << status.message();
    EXPECT_EQ(exitCodeOf(status), ExitCode::HOST);
  }
  EXPECT_EQ(exitCodeOf(failed(EBADF)), ExitCode::INTERNAL);
  EXPECT_EQ(exitCodeOf(toStatus(remote("remote exception: open(path): Too many open files"))),
            ExitCode::INTERNAL);
}

TEST(UserError, ALibrarysConditionIsNotShown) {
  auto is = [](kj::StringPtr text, kj::StringPtr wanted) {
    EXPECT_STREQ(withoutCondition(text).cStr(), wanted.cStr());
  };
  is("expected array.size() >= offset [158 >= 9]; Message ends prematurely.",
     "Message ends prematurely.");
  is("expected !exhausted(); JSON message ends prematurely.", "JSON message ends prematurely.");
  is("expected raw or qcow2; it is vmdk", "expected raw or qcow2; it is vmdk");
  is("expected a == b; TRP-cfg-001: no; not that", "TRP-cfg-001: no; not that");
  is("expected nothing", "expected nothing");
}

TEST(UserError, WhatADaemonRefusesIsPassedOnAsItIs) {
  auto shown = [](kj::StringPtr said) {
    kj::Exception failure(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::heapString(said));
    return kj::str(passedOn(failure, codes::NO_DAEMON, "it did not do it").getDescription());
  };
  EXPECT_STREQ(
      shown("remote exception: remote exception: TRP-rlm-033: no realm 7\n  see: \x1b[2J").cStr(),
      "TRP-rlm-033: no realm 7\n  see: \\x1b[2J");
  EXPECT_STREQ(shown("remote exception: no words of ours").cStr(),
               "TRP-rlm-039: it did not do it\n  1. no words of ours");
}

}  // namespace
}  // namespace troupe
