#pragma once

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <kj/async-io.h>

namespace troupe {

// The messages of a jailed peer that may be anybody's by now. RPC keeps something for each call
// that its caller has not finished, and each answer that its caller has not read, without a bound
// of its own; so a peer that calls more than it may, or lets answers pile up, is cut off.
class PeerStream final: public capnp::MessageStream {
 public:
  // `mostCalls`: how many calls of the peer may be open at once; 0 if it has nobody to call.
  PeerStream(kj::AsyncCapabilityStream& stream, uint32_t mostCalls);

  // To be told once, before anything is read. `network` reads from this stream.
  void watch(capnp::TwoPartyVatNetwork& network) { watched = network; }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override;
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  kj::Maybe<int> getSendBufferSize() override { return messages.getSendBufferSize(); }
  kj::Promise<void> end() override { return messages.end(); }

 private:
  void check(capnp::MessageReader& message);

  capnp::AsyncCapabilityMessageStream messages;
  uint32_t mostCalls;
  uint32_t openCalls = 0;
  kj::Maybe<capnp::TwoPartyVatNetwork&> watched;
};

}  // namespace troupe
