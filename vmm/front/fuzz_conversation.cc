#include "vmm/front/fuzz_conversation.h"

#include <capnp/serialize.h>
#include <kj/vector.h>

namespace troupe::front {
namespace {

using fuzz::Op;

// What it is addressed to: what the answer to a question promises or is, where question 0 is mostly
// the first object, or something else.
void address(capnp::rpc::MessageTarget::Builder target, const Op& op) {
  if (op.a & 0x10) {
    target.setImportedCap(op.c % 4);
    return;
  }
  auto answer = target.initPromisedAnswer();
  answer.setQuestionId(op.a & 0x20 ? op.c % 8 : 0);
  // Every capability that is answered with is the first pointer of an answer.
  if (op.a & 0x80) answer.initTransform(1)[0].setGetPointerField(op.c >> 8 & 1);
}

constexpr uint8_t KINDS = TEXT_KIND + 2;
constexpr uint8_t REPEATED = 4;  // a call that comes several times

void fill(capnp::rpc::Message::Builder message, const Op& op, uint32_t nth,
          const sandbox::fuzzing::Operations& ops, FillCall& fillCall) {
  uint8_t kind = op.kind % KINDS;
  uint32_t question = (op.a & 0x40 ? op.c : op.a % 16) + nth;
  switch (kind) {
    case 0:
      message.initBootstrap().setQuestionId(op.a & 0x40 ? op.c : 0);
      break;
    case 1:
    case 2:
    case 3:
    case REPEATED:
    case 5: {
      auto call = message.initCall();
      call.setQuestionId(question);
      address(call.initTarget(), op);
      fillCall(call, op, ops);
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

}  // namespace

kj::Array<kj::byte> conversation(kj::ArrayPtr<const kj::byte> input, FillCall fillCall) {
  sandbox::fuzzing::Operations ops(input, KINDS - 1);
  kj::Vector<kj::byte> bytes;
  for (const Op& op : ops.between(0, TEXT_KIND - 1)) {
    uint32_t times = op.kind % KINDS == REPEATED ? 1 + (op.b >> 8) % 32 : 1;
    for (uint32_t i = 0; i < times; i++) {
      capnp::MallocMessageBuilder message;
      fill(message.initRoot<capnp::rpc::Message>(), op, i, ops, fillCall);
      bytes.addAll(capnp::messageToFlatArray(message).asBytes());
    }
  }
  ops.poke(bytes);
  return bytes.releaseAsArray();
}

}  // namespace troupe::front
