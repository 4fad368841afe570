#include "sandbox/tool/rule_hits.h"

#include <gtest/gtest.h>
#include <seccomp.h>

#include <map>

#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

class MemoryFiles final: public ProfileFiles {
 public:
  std::optional<std::string> read(const std::string& path) const override {
    if (path != "tape.profile") return std::nullopt;
    return R"(actor: "tape"
fd { name: "reel" number: 16 kind: FILE }
start { rule { syscall: "fstat" fd: "reel" reason: "its size" } }
run {
  rule { syscall: "pread64" fd: "reel" reason: "reads" }
  rule { syscall: "brk" reason: "heap" }
}
thread { name: "spool" rule { syscall: "exit" reason: "its end" } }
)";
  }
};

std::vector<Policy> policies() {
  return {readPolicy(MemoryFiles(), "tape.profile")};
}

CallRecord call(const std::string& stage, int number, uint64_t first, uint64_t count) {
  CallRecord record;
  record.actor = "tape";
  record.stage = stage;
  record.syscall = number;
  record.arguments[0] = first;
  record.count = count;
  return record;
}

RuleHits counted() {
  RuleHits hits;
  hits.add(policies()[0], {call("start", SCMP_SYS(fstat), 16, 2),
                           call("start", SCMP_SYS(brk), 0, 3), call("ready", SCMP_SYS(brk), 0, 4)});
  return hits;
}

TEST(RuleHits, EveryRuleIsListedWithItsHitsByStage) {
  std::string table = counted().table(policies());
  EXPECT_NE(std::string::npos, table.find("2      0      0    start         fstat")) << table;
  EXPECT_NE(std::string::npos, table.find("3      0      4    run           brk")) << table;
  EXPECT_NE(std::string::npos, table.find("0      0      0    run           pread64")) << table;
  EXPECT_NE(std::string::npos, table.find("0      0      0    thread:spool  exit")) << table;
}

TEST(RuleHits, UnusedRulesAreNamedWithTheirReasons) {
  std::string unused = counted().unused(policies());
  EXPECT_EQ(std::string::npos, unused.find("brk")) << unused;
  EXPECT_NE(std::string::npos, unused.find("pread64")) << unused;
  EXPECT_NE(std::string::npos, unused.find("its end")) << unused;
}

TEST(RuleHits, CallThatMeetsNoConditionIsNoHit) {
  RuleHits hits;
  hits.add(policies()[0],
           {call("run", SCMP_SYS(pread64), 17, 9), call("run", SCMP_SYS(brk), 0, 1)});
  EXPECT_NE(std::string::npos, hits.unused(policies()).find("pread64"));
}

TEST(RuleHits, RunsAddUpInAFile) {
  RuleHits hits;
  ASSERT_TRUE(hits.addText(counted().text()));
  ASSERT_TRUE(hits.addText(counted().text()));
  EXPECT_NE(std::string::npos, hits.table(policies()).find("6      0      8    run"))
      << hits.table(policies());
  EXPECT_FALSE(hits.addText("something else\n"));
  EXPECT_FALSE(hits.addText("troupe-coverage 1\ntape\tprocess\n"));
}

TEST(RuleHits, JsonHasARowForEachRule) {
  std::string json = counted().json(policies());
  EXPECT_NE(std::string::npos, json.find("\"syscall\":\"fstat\"")) << json;
  EXPECT_NE(std::string::npos, json.find("\"start\":2")) << json;
}

TEST(RuleHits, ActorThatDidNotRunIsNotBlamed) {
  RuleHits hits;
  EXPECT_EQ("", hits.unused(policies()));
  EXPECT_EQ("tape: did not run\n", hits.table(policies()));
}

}  // namespace
}  // namespace troupe::sandbox
