#include "vmm/actors/child_log.h"

#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

// A log whose actor writes `text` and leaves.
kj::Vector<kj::String> lastWordsOf(kj::StringPtr text, kj::StringPtr noise = nullptr) {
  auto io = kj::setupAsyncIo();
  auto pipe = io.provider->newOneWayPipe();
  ChildLog log(kj::mv(pipe.in), "blk0", io.provider->getTimer(), noise);
  auto writing = pipe.out->write(text.begin(), text.size()).then([&]() { pipe.out = nullptr; });
  log.onEnd()
      .exclusiveJoin(writing.then([]() { return kj::Promise<void>(kj::NEVER_DONE); }))
      .wait(io.waitScope);
  return log.lastWords();
}

TEST(ChildLog, KeepsTheLastLines) {
  auto words = lastWordsOf("1\n2\n3\n4\n5\n6\n7\n8\n9\n10");
  ASSERT_EQ(words.size(), 8);
  EXPECT_STREQ(words[0].cStr(), "3");
  EXPECT_STREQ(words[7].cStr(), "10");
}

TEST(ChildLog, EscapesWhatATerminalWouldObey) {
  auto words = lastWordsOf("\x1b]0;title\x07\n");
  ASSERT_EQ(words.size(), 1);
  EXPECT_STREQ(words[0].cStr(), "\\x1b]0;title\\x07");
}

TEST(ChildLog, DropsNoise) {
  auto words = lastWordsOf("Failed to send 9 bytes to syslog\nno\nFailed\n", "Failed to send ");
  ASSERT_EQ(words.size(), 2);
  EXPECT_STREQ(words[0].cStr(), "no");
  EXPECT_STREQ(words[1].cStr(), "Failed");
}

TEST(ChildLog, CutsALineWithoutEnd) {
  std::string endless(1 << 20, 'x');
  auto words = lastWordsOf(endless.c_str());
  ASSERT_EQ(words.size(), 1);
  EXPECT_LE(words[0].size(), 400);
}

}  // namespace
}  // namespace troupe
