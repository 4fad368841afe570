// Fuzzes what a client of the metrics' socket says, in one piece or byte by byte.
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/timer.h>

#include <cstring>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "vmm/front/metrics_session.h"

namespace troupe::front {
namespace {

using fuzz::finding;

class FakeVm final: public Vm::Server {
 public:
  explicit FakeVm(uint32_t& calls) : calls(calls) {}
  kj::Promise<void> load(LoadContext context) override {
    ++calls;
    context.getResults().initLoad().setName("web");
    return kj::READY_NOW;
  }

 private:
  uint32_t& calls;
};

bool begins(kj::ArrayPtr<const kj::byte> bytes, kj::StringPtr with) {
  return bytes.size() >= with.size() && memcmp(bytes.begin(), with.begin(), with.size()) == 0;
}

// In pieces of `size` bytes.
kj::Promise<void> say(kj::AsyncIoStream& client, kj::ArrayPtr<const kj::byte> bytes, size_t size) {
  if (bytes.size() == 0) {
    client.shutdownWrite();
    return kj::READY_NOW;
  }
  size_t part = kj::min(size, bytes.size());
  return client.write(bytes.begin(), part).then([&client, bytes, part, size] {
    return say(client, bytes.slice(part, bytes.size()), size);
  });
}

void run(kj::ArrayPtr<const kj::byte> input) {
  if (input.size() == 0) return;
  size_t piece = input[0] < 128 ? 8192 : input[0] - 127;
  auto request = input.slice(1, input.size());
  // Its headers may go on for longer than an input is.
  kj::Vector<kj::byte> longer;
  if (input[0] == 127) {
    for (size_t i = 0; i < 3 * MOST_REQUEST_BYTES && request.size() > 0; i += request.size())
      longer.addAll(request);
    request = longer;
  }

  kj::EventLoop loop;
  kj::WaitScope scope(loop);
  kj::TimerImpl timer(kj::origin<kj::TimePoint>());
  uint32_t calls = 0;
  auto pipe = kj::newTwoWayPipe();
  auto served = serveMetrics(kj::mv(pipe.ends[0]), kj::heap<FakeVm>(calls), timer)
                    .catch_([](kj::Exception&&) {})
                    .eagerlyEvaluate(nullptr);
  auto said =
      say(*pipe.ends[1], request, piece).catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
  auto answer = pipe.ends[1]->readAllText().then([](kj::String text) { return text; },
                                                 [](kj::Exception&&) { return kj::String(); });
  auto text = answer.wait(scope);
  if (text.size() > 0 && !text.startsWith("HTTP/1.1 ")) finding("an answer that is no HTTP");
  bool asks = begins(request, "GET ") || begins(request, "HEAD ");
  if (calls > 1 || (calls == 1 && !asks)) finding("the VM is asked for what nobody asked for");
  if (text.startsWith("HTTP/1.1 200") && calls == 0) finding("metrics that nobody gave");
  timer.advanceTo(kj::origin<kj::TimePoint>() + 2 * METRICS_PATIENCE);
  served.wait(scope);
}

}  // namespace
}  // namespace troupe::front

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  troupe::front::run(kj::arrayPtr(data, size));
  return 0;
}
