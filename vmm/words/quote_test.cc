#include "vmm/words/quote.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

namespace troupe {
namespace {

std::string text(kj::StringPtr value) {
  return value.cStr();
}

TEST(Escape, ControlCharactersCannotReachATerminal) {
  EXPECT_EQ(text(escape(kj::StringPtr("a\x1b[2J\r\n\tb\x7f"))), "a\\x1b[2J\\r\\n\\tb\\x7f");
}

TEST(Escape, KeepsTextOfOtherAlphabets) {
  EXPECT_EQ(text(escape(kj::StringPtr("größe 大"))), "größe 大");
}

TEST(Escape, BytesThatAreNotUtf8AreShownAsHex) {
  EXPECT_EQ(text(escape(kj::StringPtr("\xff\xc0\x80\xe2\x82"))), "\\xff\\xc0\\x80\\xe2\\x82");
}

TEST(Escape, C1ControlsAndDirectionOverridesAreEscaped) {
  EXPECT_EQ(text(escape(kj::StringPtr("\xc2\x9b"))), "\\xc2\\x9b");
  EXPECT_EQ(text(escape(kj::StringPtr("\xe2\x80\xae"))), "\\xe2\\x80\\xae");
}

TEST(Escape, LongTextIsCut) {
  auto longText = kj::heapString(1000);
  for (auto& c : longText)
    c = 'x';
  EXPECT_EQ(escape(longText, 10).size(), 10 + strlen("…"));
}

TEST(ErrnoText, SaysItInWordsAndByName) {
  EXPECT_EQ(text(errnoText(ENOENT)), "no such file or directory (ENOENT)");
}

TEST(Nearest, FindsTheSlipOfTheKeyboard) {
  const kj::StringPtr choices[] = {"kernel", "initrd", "memory"};
  EXPECT_EQ(text(KJ_ASSERT_NONNULL(nearest("kernle", choices))), "kernel");
  EXPECT_EQ(text(KJ_ASSERT_NONNULL(nearest("memry", choices))), "memory");
}

TEST(Nearest, TwoLettersThatChangedPlacesAreOneSlip) {
  const kj::StringPtr choices[] = {"run", "stop"};
  EXPECT_EQ(text(KJ_ASSERT_NONNULL(nearest("rnu", choices))), "run");
}

TEST(Nearest, FindsNothingWhenAllAreFar) {
  const kj::StringPtr choices[] = {"kernel", "initrd"};
  EXPECT_TRUE(nearest("frobnicate", choices) == nullptr);
}

TEST(Nearest, AWordMayBeBegunAndNotEnded) {
  const kj::StringPtr choices[] = {"memory", "metrics", "net"};
  EXPECT_EQ(text(KJ_ASSERT_NONNULL(nearest("mem", choices))), "memory");
  EXPECT_TRUE(nearest("m", choices) == nullptr);
}

TEST(ShellWord, IsWhatBashReadsBack) {
  EXPECT_EQ(text(shellWord("/var/a-b_c,d=1.img")), "/var/a-b_c,d=1.img");
  EXPECT_EQ(text(shellWord("")), "''");
  EXPECT_EQ(text(shellWord("a b's")), "'a b'\\''s'");
  EXPECT_EQ(text(shellWord("$(reboot)")), "'$(reboot)'");
  EXPECT_EQ(text(shellWord("~/k")), "'~/k'");
  EXPECT_EQ(text(shellWord("a\n\x1b'\\\xff")), "$'a\\n\\x1b\\'\\\\\\xff'");
}

TEST(ListChoices, ReadsAsASentence) {
  const kj::StringPtr choices[] = {"a", "b", "c"};
  EXPECT_EQ(text(listChoices(choices)), "a, b or c");
}

}  // namespace
}  // namespace troupe
