#include "vmm/front/metrics_session.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace troupe::front {
namespace {

class FakeVm final: public Vm::Server {
 public:
  explicit FakeVm(uint32_t& calls) : calls(calls) {}
  kj::Promise<void> load(LoadContext context) override {
    calls++;
    context.getResults().initLoad().setName("web");
    return kj::READY_NOW;
  }

 private:
  uint32_t& calls;
};

// One connection, and this test at its other end.
struct Bench {
  Bench() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    client = io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(fds[0]));
    served = serveMetrics(io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(fds[1])),
                          kj::heap<FakeVm>(calls), timer)
                 .eagerlyEvaluate(nullptr);
  }

  void say(kj::StringPtr text) { client->write(text.begin(), text.size()).wait(io.waitScope); }

  // All that is answered, up to its end.
  std::string hear() {
    auto text = client->readAllText().wait(io.waitScope);
    return text.cStr();
  }

  std::string ask(kj::StringPtr request) {
    say(request);
    return hear();
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  uint32_t calls = 0;
  kj::Own<kj::AsyncIoStream> client;
  kj::Promise<void> served = nullptr;
};

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

TEST(MetricsSession, AnswersWithTheMetricsAndCloses) {
  for (auto request : {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"_kj, "GET / HTTP/1.0\n\n"_kj}) {
    Bench bench;
    auto answer = bench.ask(request);
    EXPECT_EQ(answer.find("HTTP/1.1 200 OK\r\n"), 0u) << answer;
    EXPECT_TRUE(has(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    EXPECT_TRUE(has(answer, "troupe_vcpus{vm=\"web\"}"));
    auto body = answer.substr(answer.find("\r\n\r\n") + 4);
    EXPECT_TRUE(has(answer, ("Content-Length: " + std::to_string(body.size()) + "\r\n").c_str()));
  }
}

TEST(MetricsSession, ARequestMayComeInPieces) {
  Bench bench;
  for (char c : "GET /metrics HTTP/1.1\r\nA: b\r\n\r"_kj)
    bench.say(kj::heapString(&c, 1));
  EXPECT_EQ(bench.calls, 0u);
  EXPECT_TRUE(has(bench.ask("\n"), "200 OK"));
}

TEST(MetricsSession, ForHeadersAloneThereIsNoBody) {
  Bench bench;
  auto answer = bench.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(has(answer, "200 OK"));
  EXPECT_EQ(answer.find("\r\n\r\n") + 4, answer.size());
}

TEST(MetricsSession, WhateverElseIsAskedGetsAReasonAndNoCall) {
  struct Case {
    kj::StringPtr request;
    const char* status;
  };
  const Case cases[] = {
      {"GET /etc/passwd HTTP/1.1\r\n\r\n"_kj, "404"},
      {"GET /metricsx HTTP/1.1\r\n\r\n"_kj, "404"},
      {"POST /metrics HTTP/1.1\r\n\r\n"_kj, "405"},
      {"GET /metrics\r\n\r\n"_kj, "400"},
      {"GET /metrics HTTP/2.0\r\n\r\n"_kj, "400"},
      {"\r\n\r\n"_kj, "400"},
      {"\x16\x03\x01\n\n"_kj, "400"},
  };
  for (auto& one : cases) {
    Bench bench;
    EXPECT_TRUE(has(bench.ask(one.request), one.status)) << one.request.cStr();
    EXPECT_EQ(bench.calls, 0u);
  }
}

TEST(MetricsSession, ARequestWithoutEndIsReadSoFarAndNoFurther) {
  Bench bench;
  auto flood = kj::str(kj::repeat('x', MOST_REQUEST_BYTES));
  EXPECT_TRUE(has(bench.ask(flood), "400"));
}

TEST(MetricsSession, WhoSaysNothingIsHungUpOnInTime) {
  Bench bench;
  bench.say("GET /me");
  bench.timer.advanceTo(bench.timer.now() + METRICS_PATIENCE - 1 * kj::MILLISECONDS);
  EXPECT_FALSE(bench.served.poll(bench.io.waitScope));
  bench.timer.advanceTo(bench.timer.now() + 1 * kj::MILLISECONDS);
  EXPECT_TRUE(bench.served.poll(bench.io.waitScope));
  EXPECT_EQ(bench.hear(), "");
}

TEST(MetricsSession, WhoLeavesEndsTheConnection) {
  Bench bench;
  bench.client = nullptr;
  bench.served.then([]() {}, [](kj::Exception&&) {}).wait(bench.io.waitScope);
  EXPECT_EQ(bench.calls, 0u);
}

}  // namespace
}  // namespace troupe::front
