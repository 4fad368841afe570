// Fuzzes what a client of a VM's control socket says: messages of Cap'n Proto's RPC, mostly calls
// of Vm with fields out of range, in any order, with bytes of them spoiled.
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/timer.h>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"
#include "vmm/front/front_actor.h"

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
  auto text = ops.text(12, "blk0");
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

// What it is addressed to: the VM, which the answer to question 0 promises or is, or something
// else.
void address(capnp::rpc::MessageTarget::Builder target, const Op& op) {
  if (op.a & 0x10) {
    target.setImportedCap(op.c % 4);
  } else {
    target.initPromisedAnswer().setQuestionId(op.a & 0x20 ? op.c % 8 : 0);
  }
}

void fill(capnp::rpc::Message::Builder message, const Op& op, uint8_t kind,
          const sandbox::fuzzing::Operations& ops) {
  uint32_t question = op.a & 0x40 ? op.c : op.a % 16;
  switch (kind) {
    case 0:
      message.initBootstrap().setQuestionId(op.a & 0x40 ? op.c : 0);
      break;
    case 1:
    case 2:
    case 3:
    case 4:
    case 5: {
      auto call = message.initCall();
      call.setQuestionId(question);
      address(call.initTarget(), op);
      call.setInterfaceId(kind == 5 ? capnp::typeId<EventReader>() : capnp::typeId<Vm>());
      call.setMethodId(kind == 5 ? 0 : op.b % 16);
      fillParams(call.initParams().initContent(), op, ops);
      break;
    }
    case 6:
    case 7: {
      auto finish = message.initFinish();
      finish.setQuestionId(question);
      finish.setReleaseResultCaps(op.b & 1);
      break;
    }
    case 8: {
      auto release = message.initRelease();
      release.setId(op.c % 8);
      release.setReferenceCount(op.b);
      break;
    }
    case 9: {
      auto back = message.initReturn();
      back.setAnswerId(question);
      if (op.b & 1) back.initResults();
      break;
    }
    case 10: {
      auto disembargo = message.initDisembargo();
      address(disembargo.initTarget(), op);
      disembargo.initContext().setSenderLoopback(op.c);
      break;
    }
    default: {
      auto resolve = message.initResolve();
      resolve.setPromiseId(op.c % 4);
      resolve.initCap().setSenderHosted(op.b);
      break;
    }
  }
}

kj::Array<kj::byte> conversation(kj::ArrayPtr<const kj::byte> input) {
  sandbox::fuzzing::Operations ops(input, 13);
  kj::Vector<kj::byte> bytes;
  for (const Op& op : ops.between(0, 11)) {
    capnp::MallocMessageBuilder message;
    fill(message.initRoot<capnp::rpc::Message>(), op, op.kind % 14, ops);
    bytes.addAll(capnp::messageToFlatArray(message).asBytes());
  }
  ops.poke(bytes);
  return bytes.releaseAsArray();
}

void run(kj::ArrayPtr<const kj::byte> input) {
  auto bytes = conversation(input);
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
  // One that listens, or does not.
  bool listens = input.size() == 0 || (input[0] & 0x80) == 0;
  kj::Promise<void> hearing = nullptr;
  if (listens) hearing = hear().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
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
