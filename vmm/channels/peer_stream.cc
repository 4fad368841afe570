#include "vmm/channels/peer_stream.h"

#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

#include "protos/handle.capnp.h"
#include "tests/fuzz/planted.h"

namespace troupe {

PeerStream::PeerStream(kj::Own<capnp::MessageStream> messages, uint32_t mostCalls)
    : messages(kj::mv(messages)), mostCalls(mostCalls) {}

PeerStream::PeerStream(kj::AsyncCapabilityStream& stream, uint32_t mostCalls)
    : PeerStream(kj::heap<capnp::AsyncCapabilityMessageStream>(stream), mostCalls) {}

PeerStream::PeerStream(kj::AsyncIoStream& stream, uint32_t mostCalls)
    : PeerStream(kj::heap<capnp::AsyncIoMessageStream>(stream), mostCalls) {}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> PeerStream::tryReadMessage(
    kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
    kj::ArrayPtr<capnp::word> scratchSpace) {
  return untilItHasRead()
      .then([this, fdSpace, options, scratchSpace]() {
        return messages->tryReadMessage(fdSpace, options, scratchSpace);
      })
      .then([this](kj::Maybe<capnp::MessageReaderAndFds>&& message) {
        KJ_IF_MAYBE (received, message) {
          check(*received->reader);
        }
        return kj::mv(message);
      });
}

kj::Promise<void> PeerStream::writeMessage(
    kj::ArrayPtr<const int> fds, kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  return messages->writeMessage(fds, segments).attach(kj::defer([this]() { written(); }));
}

kj::Promise<void> PeerStream::writeMessages(
    kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> batch) {
  return messages->writeMessages(batch).attach(kj::defer([this]() { written(); }));
}

void PeerStream::written() {
  KJ_IF_MAYBE (waiting, onWritten) {
    auto fulfiller = kj::mv(*waiting);
    onWritten = nullptr;
    fulfiller->fulfill();
  }
}

// The message that was written last may still be counted.
bool PeerStream::isBehind() {
  KJ_IF_MAYBE (network, watched) {
    size_t count = network->getCurrentQueueCount();
    return count > MOST_UNREAD_MESSAGES ||
           (count > 1 && network->getCurrentQueueSize() > MOST_UNREAD_BYTES);
  }
  return false;
}

// Where it never does, what is to be written fails when it leaves, and RPC ends the reading then.
kj::Promise<void> PeerStream::untilItHasRead() {
  if (!isBehind()) return kj::READY_NOW;
  auto waiting = kj::newPromiseAndFulfiller<void>();
  onWritten = kj::mv(waiting.fulfiller);
  return waiting.promise.then([this]() { return untilItHasRead(); });
}

void PeerStream::check(capnp::MessageReader& reader) {
  auto requireFew = [](capnp::rpc::Payload::Reader payload) {
    KJ_REQUIRE(payload.getCapTable().size() <= MAX_FDS_PER_MESSAGE,
               "the peer hands over more capabilities than it may");
  };
  auto message = reader.getRoot<capnp::rpc::Message>();
  switch (message.which()) {
    case capnp::rpc::Message::CALL:
      requireFew(message.getCall().getParams());
      return begins(message.getCall().getQuestionId());
    case capnp::rpc::Message::BOOTSTRAP:
      return begins(message.getBootstrap().getQuestionId());
    case capnp::rpc::Message::FINISH:
      return ends(message.getFinish().getQuestionId());
    case capnp::rpc::Message::RETURN:
      if (message.getReturn().isResults()) requireFew(message.getReturn().getResults());
      return;
    case capnp::rpc::Message::RESOLVE:
    case capnp::rpc::Message::RELEASE:
    case capnp::rpc::Message::DISEMBARGO:
    case capnp::rpc::Message::ABORT:
    case capnp::rpc::Message::UNIMPLEMENTED:
      return;
    default:
      KJ_FAIL_REQUIRE("the peer sends what nobody here understands");
  }
}

void PeerStream::begins(uint32_t call) {
  KJ_REQUIRE(openCalls.size() < mostCalls || fuzz::isPlanted(fuzz::Bug::CALLS_UNBOUNDED),
             "the peer calls more than it may", mostCalls);
  KJ_REQUIRE(!openCalls.contains(call), "the peer calls twice by one number", call);
  openCalls.insert(kj::mv(call));
}

// RPC takes the end of a call that nobody has answered yet as often as it comes: each would make
// room for another call.
void PeerStream::ends(uint32_t call) {
  KJ_REQUIRE(openCalls.eraseMatch(call), "the peer ends a call that it has not open", call);
}

}  // namespace troupe
