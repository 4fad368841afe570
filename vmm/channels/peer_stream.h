#pragma once

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <kj/async-io.h>
#include <kj/map.h>

namespace troupe {

// The messages of a jailed peer, or an outside client, that may be anybody's by now. RPC keeps
// something for each call that its caller has not finished, each capability that a message speaks
// of and each answer that nobody has read, without a bound of its own. So a peer that has more
// calls open than it may, or hands over more capabilities than any call has, is cut off; and one
// that lets answers pile up is not heard until it has read them.
class PeerStream final: public capnp::MessageStream {
 public:
  // Unread, of our messages; some of what is under way already comes on top.
  static constexpr size_t MOST_UNREAD_BYTES = 1 << 20;  // a hundred times what a start sends
  static constexpr size_t MOST_UNREAD_MESSAGES = 128;   // RPC allocates 8 KiB for the shortest

  // `mostCalls`: how many calls of the peer may be open at once; 0 if it has nobody to call.
  PeerStream(kj::AsyncCapabilityStream& stream, uint32_t mostCalls);
  PeerStream(kj::AsyncIoStream& stream, uint32_t mostCalls);

  // To be told once, before anything is read. `network` reads from this stream.
  void watch(capnp::TwoPartyVatNetwork& network) { watched = network; }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override;
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> batch) override;
  kj::Maybe<int> getSendBufferSize() override { return messages->getSendBufferSize(); }
  kj::Promise<void> end() override { return messages->end(); }

 private:
  PeerStream(kj::Own<capnp::MessageStream> messages, uint32_t mostCalls);

  void check(capnp::MessageReader& message);
  void begins(uint32_t call);
  void ends(uint32_t call);
  bool isBehind();
  kj::Promise<void> untilItHasRead();
  void written();

  kj::Own<capnp::MessageStream> messages;
  uint32_t mostCalls;
  kj::HashSet<uint32_t> openCalls;  // by their numbers
  kj::Maybe<capnp::TwoPartyVatNetwork&> watched;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> onWritten;  // of who waits to read on
};

}  // namespace troupe
