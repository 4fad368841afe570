#include "vmm/serve/rpc_session.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <string>

namespace troupe::realm {
namespace {

struct Bench {
  std::string answerTo(kj::StringPtr line) {
    said.clear();
    session.take(line.asArray());
    session.onIdle().wait(io.waitScope);
    return said;
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  std::string said;
  RpcSession session{io, Manager::Client(KJ_EXCEPTION(FAILED, "nobody is asked")),
                     [this](kj::StringPtr line) { said += line.cStr(); }};
};

TEST(RpcSession, CarriesBytesBetweenTheEndsOfAPair) {
  Bench bench;
  EXPECT_EQ(bench.answerTo(R"({"id": 1, "pair": true})"), R"({"id":1,"handles":[1,2]})");
  EXPECT_EQ(bench.answerTo(R"({"id": 2, "write": 1, "base64": "aGVsbG8="})"),
            R"({"id":2,"bytes":5})");
  EXPECT_EQ(bench.answerTo(R"({"id": 3, "read": 2})"), R"({"id":3,"base64":"aGVsbG8="})");
}

TEST(RpcSession, WritesNothingOfWhatIsNoBase64) {
  Bench bench;
  bench.answerTo(R"({"id": 1, "pair": true})");
  EXPECT_NE(bench.answerTo(R"({"id": 2, "write": 1, "base64": "aGVs*G8="})").find("TRP-rlm-043"),
            std::string::npos)
      << bench.said;
}

}  // namespace
}  // namespace troupe::realm
