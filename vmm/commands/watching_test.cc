#include "vmm/commands/watching.h"

#include <gtest/gtest.h>
#include <kj/exception.h>
#include <stdlib.h>

namespace troupe {
namespace {

using Words = kj::ArrayPtr<const kj::StringPtr>;

TEST(WatchRequest, LearnsOptionIsTakenOut) {
  kj::StringPtr given[] = {"--watch-calls=refused:/tmp/x", "--kernel", "k"};
  Words words = given;
  auto request = takeWatchRequest(words);
  ASSERT_TRUE(request != nullptr);
  KJ_IF_MAYBE (watch, request) {
    EXPECT_TRUE(watch->onlyReports());
    EXPECT_STREQ("/tmp/x", watch->folder.cStr());
  }
  ASSERT_EQ(2u, words.size());
  EXPECT_TRUE(words[0] == "--kernel");
}

TEST(WatchRequest, OptionIsOnlyKnownAsTheFirstWord) {
  kj::StringPtr given[] = {"--kernel", "k", "--watch-calls=all:/tmp/x"};
  Words words = given;
  EXPECT_TRUE(takeWatchRequest(words) == nullptr);
  EXPECT_EQ(3u, words.size());
}

TEST(WatchRequest, EnvironmentCanAskForCountingAndNothingElse) {
  Words words;
  setenv("TROUPE_COVERAGE", "/tmp/y", 1);
  auto request = takeWatchRequest(words);
  unsetenv("TROUPE_COVERAGE");
  ASSERT_TRUE(request != nullptr);
  KJ_IF_MAYBE (watch, request) {
    EXPECT_FALSE(watch->onlyReports());
  }
  EXPECT_TRUE(takeWatchRequest(words) == nullptr);
}

TEST(WatchRequest, OtherModesAreRefused) {
  for (kj::StringPtr word : {"--watch-calls=", "--watch-calls=all:", "--watch-calls=count:/tmp"}) {
    kj::StringPtr given[] = {word};
    Words words = given;
    EXPECT_TRUE(kj::runCatchingExceptions([&]() { takeWatchRequest(words); }) != nullptr);
  }
}

}  // namespace
}  // namespace troupe
