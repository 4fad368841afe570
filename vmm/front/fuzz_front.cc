// Fuzzes what a client of a VM's control socket says: messages of Cap'n Proto's RPC, mostly calls
// of Vm with fields out of range, in any order, with bytes of them spoiled.
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/timer.h>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "vmm/front/front_actor.h"
#include "vmm/front/fuzz_conversation.h"

namespace troupe::front {
namespace {

using fuzz::finding;
using fuzz::Op;

// Plays `troupe`, which believes what the front end promises of texts.
class StrictVm final: public Vm::Server {
 public:
  kj::Promise<void> status(StatusContext context) override {
    context.getResults().initStatus().setName("vm");
    return kj::READY_NOW;
  }
  kj::Promise<void> load(LoadContext context) override {
    context.getResults().initLoad().setName("vm");
    return kj::READY_NOW;
  }
  kj::Promise<void> resizeDisk(ResizeDiskContext context) override {
    if (context.getParams().getDisk().size() > 256) finding("a long name of a disk");
    return kj::READY_NOW;
  }
  kj::Promise<void> net(NetContext context) override {
    if (context.getParams().getDevice().size() > 32) finding("a long name of a device");
    return kj::READY_NOW;
  }
  kj::Promise<void> replaceDevice(ReplaceDeviceContext context) override {
    auto params = context.getParams();
    bool isShort = params.getDevice().size() <= 256 && params.getBinary().size() <= 4096 &&
                   params.getProfilePath().size() <= 4096 && params.getProfile().size() <= 16 << 10;
    if (!isShort) finding("a long text of a replacement");
    return kj::READY_NOW;
  }
  kj::Promise<void> balloon(BalloonContext) override { return kj::READY_NOW; }
  kj::Promise<void> events(EventsContext context) override {
    context.getResults().setReader(kj::heap<NoEvents>());
    return kj::READY_NOW;
  }

 private:
  class NoEvents final: public EventReader::Server {
    kj::Promise<void> next(NextContext context) override {
      if (context.getParams().getWait()) return kj::NEVER_DONE;
      return kj::READY_NOW;
    }
  };
};

void fillParams(capnp::AnyPointer::Builder content, const Op& op,
                const sandbox::fuzzing::Operations& ops) {
  auto text = ops.text(TEXT_KIND, "blk0");
  switch (op.b % 16) {
    case 5: {
      auto params = content.initAs<Vm::ResizeDiskParams>();
      params.setDisk(text);
      params.setBytes(op.d);
      break;
    }
    case 6:
      content.initAs<Vm::BalloonParams>().initRequest().setGuestBytes(op.d);
      break;
    case 12:
      content.initAs<Vm::EventsParams>().setAfter(op.d);
      break;
    case 13: {
      auto params = content.initAs<Vm::NetParams>();
      params.setDevice(text);
      params.initWish().setLinkUp(op.d & 1);
      break;
    }
    case 14: {
      auto params = content.initAs<Vm::ReplaceDeviceParams>();
      params.setDevice(text);
      params.setBinary(sandbox::fuzzing::word(op.c, "/bin/x"));
      params.setProfile(kj::heapArray<kj::byte>(op.c % 20000));
      break;
    }
    default:
      content.initAs<Vm::StopParams>().setTimeoutMs(op.c);
      break;
  }
}

void fillCall(capnp::rpc::Call::Builder call, const Op& op,
              const sandbox::fuzzing::Operations& ops) {
  bool reads = op.kind % 14 == 5;
  call.setInterfaceId(reads ? capnp::typeId<EventReader>() : capnp::typeId<Vm>());
  call.setMethodId(reads ? 0 : op.b % 16);
  fillParams(call.initParams().initContent(), op, ops);
}

void run(kj::ArrayPtr<const kj::byte> input) {
  auto bytes = conversation(input, fillCall);
  kj::EventLoop loop;
  kj::WaitScope scope(loop);
  kj::TimerImpl timer(kj::origin<kj::TimePoint>());
  auto pipe = kj::newTwoWayPipe();
  bool isOver = false;
  auto served = serveClient(kj::mv(pipe.ends[0]), kj::heap<StrictVm>(), timer)
                    .catch_([](kj::Exception&&) {})
                    .then([&isOver] { isOver = true; })
                    .eagerlyEvaluate(nullptr);
  kj::byte heard[4096];
  kj::Function<kj::Promise<void>()> hear = [&]() -> kj::Promise<void> {
    return pipe.ends[1]->tryRead(heard, 1, sizeof(heard)).then([&](size_t n) -> kj::Promise<void> {
      if (n == 0) return kj::READY_NOW;
      return hear();
    });
  };
  kj::Promise<void> hearing = nullptr;
  if (listens(input)) hearing = hear().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
  auto said = pipe.ends[1]
                  ->write(bytes.begin(), bytes.size())
                  .catch_([](kj::Exception&&) {})
                  .eagerlyEvaluate(nullptr);
  scope.poll();
  hearing = nullptr;
  said = nullptr;
  pipe.ends[1] = nullptr;
  scope.poll();
  if (!isOver) finding("a client that is gone is served on");
}

}  // namespace
}  // namespace troupe::front

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  troupe::front::run(kj::arrayPtr(data, size));
  return 0;
}
