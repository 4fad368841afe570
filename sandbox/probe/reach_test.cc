#include "sandbox/probe/reach.h"

#include <gtest/gtest.h>

namespace troupe::sandbox::probe {
namespace {

using Lines = std::vector<std::string>;

const Lines TABLE = {"always", "old [before 6.5]", "new [since 6.5]"};

TEST(Reach, LinesWithAMarkHoldForTheirKernelsOnly) {
  EXPECT_EQ("", compareLines(TABLE, {"always", "old"}, "6.1.0-28-cloud-amd64"));
  EXPECT_EQ("", compareLines(TABLE, {"always", "new"}, "6.5.1"));
  EXPECT_EQ("", compareLines(TABLE, {"always", "new"}, "6.18.44"));
  EXPECT_EQ("", compareLines(TABLE, {"always", "new"}, "7.0"));
  EXPECT_EQ("  expected: new\n  found:    old\n",
            compareLines(TABLE, {"always", "old"}, "6.18.44"));
}

TEST(Reach, ALineTooManyAndOneTooFewAreBothDifferences) {
  EXPECT_EQ("  expected: b\n  found:    c\n", compareLines({"a", "b"}, {"a", "c"}, "6.1"));
}

TEST(Reach, WritingKeepsMarksAndWhatHoldsElsewhere) {
  Lines found = {"first", "always", "new"};
  EXPECT_EQ((Lines{"first", "always", "old [before 6.5]", "new [since 6.5]"}),
            updatedLines(TABLE, found, "6.18.44"));
  EXPECT_EQ((Lines{"first", "always", "new [since 6.5]", "other"}),
            updatedLines(TABLE, {"first", "always", "other"}, "6.1.0"));
}

}  // namespace
}  // namespace troupe::sandbox::probe
