#include "vmm/user_error.h"

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

TEST(WrapActorError, ACodeInTheMiddleOfTextIsNotBelieved) {
  auto error = wrapActorError(remote("the file TRP-cfg-001: x"), codes::START_REFUSED, "failed");
  EXPECT_TRUE(error.render().startsWith("TRP-run-002: "));
}

}  // namespace
}  // namespace troupe
