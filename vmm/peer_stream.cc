#include "vmm/peer_stream.h"

#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

namespace troupe {

namespace {

constexpr size_t MOST_UNREAD_BYTES = 1 << 20;  // a hundred times what is under way at a start

}  // namespace

PeerStream::PeerStream(kj::AsyncCapabilityStream& stream, uint32_t mostCalls)
    : messages(stream), mostCalls(mostCalls) {}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> PeerStream::tryReadMessage(
    kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
    kj::ArrayPtr<capnp::word> scratchSpace) {
  return messages.tryReadMessage(fdSpace, options, scratchSpace)
      .then([this](kj::Maybe<capnp::MessageReaderAndFds>&& message) {
        KJ_IF_MAYBE (received, message) {
          check(*received->reader);
        }
        return kj::mv(message);
      });
}

kj::Promise<void> PeerStream::writeMessage(
    kj::ArrayPtr<const int> fds, kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  return messages.writeMessage(fds, segments);
}

kj::Promise<void> PeerStream::writeMessages(
    kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> batch) {
  return messages.writeMessages(batch);
}

void PeerStream::check(capnp::MessageReader& message) {
  KJ_IF_MAYBE (network, watched) {
    KJ_REQUIRE(network->getCurrentQueueSize() <= MOST_UNREAD_BYTES,
               "the peer does not read its answers");
  }
  switch (message.getRoot<capnp::rpc::Message>().which()) {
    case capnp::rpc::Message::CALL:
    case capnp::rpc::Message::BOOTSTRAP:
      KJ_REQUIRE(openCalls < mostCalls, "the peer calls more than it may", mostCalls);
      openCalls++;
      return;
    case capnp::rpc::Message::FINISH:
      if (openCalls > 0) openCalls--;  // RPC itself refuses the end of a call that is none
      return;
    case capnp::rpc::Message::RETURN:
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

}  // namespace troupe
