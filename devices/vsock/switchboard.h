#pragma once

#include <kj/common.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/virtio/virtqueue.h"
#include "devices/vsock/host_side.h"
#include "devices/vsock/receive_buffers.h"
#include "devices/vsock/slot_queue.h"
#include "devices/vsock/stream_table.h"
#include "devices/vsock/wire.h"

namespace troupe::vsock {

// Connects the guest's streams with sockets of the host (§5.10.6): reads what the driver sends,
// fills what it offers, and keeps both ends of every stream honest. Knows no fd and no event loop;
// exists from DRIVER_OK to reset.
//
// What is kept for a stream is bounded by the credit it was given, and for the guest's other
// mistakes by MOST_RESETS: when as many refusals wait for a buffer, nothing more is read from the
// driver until it offers one (§5.10.6.1.2). From a socket only that is read for which the guest has
// a buffer and has given credit.
class Switchboard {
 public:
  struct Rings {  // null where the driver enabled none
    virtio::Virtqueue* receive;
    virtio::Virtqueue* transmit;
    virtio::Virtqueue* event;
  };
  // What one turn ends with.
  struct Turn {
    bool interrupts[QUEUES];  // the driver wants to hear of it
    bool more;                // there is more to do at once
    bool broken;              // only a reset heals a ring
  };

  // `host` outlives it, and so does `nextPort`: the next port for a client of the host, which is
  // kept for whoever takes this process's place; any value will do at first.
  Switchboard(uint64_t guestCid, HostSide& host, Rings rings, uint32_t& nextPort,
              uint16_t slots = MOST_STREAMS, uint16_t roomy = ROOMY_STREAMS);
  KJ_DISALLOW_COPY(Switchboard);

  // Does what there is to do, up to a bound; then others of the loop have their turn.
  Turn serve();

  // Whether another client has no place.
  bool full() const { return table.full(); }
  size_t streams() const { return table.inUse(); }

  // A client has connected, while not full(): to the socket where it says which port it wants, or
  // to the one for `guestPort`.
  Stream& greet(kj::Own<HostSocket> socket);
  Stream& forward(kj::Own<HostSocket> socket, uint32_t guestPort);

  // Somebody who has a name of his own wants a stream, while not full() and not taken().
  Stream& offer(kj::Own<HostSocket> socket, const StreamKey& key, kj::Own<Offer> offer);
  bool taken(const StreamKey& key) { return table.find(key) != nullptr; }

  // The stream's socket or attempt has news; serve() looks what.
  void ready(Stream& stream) {
    stream.socketReady = true;
    hostWork.add(stream.slot);
  }

  // By its slot; none where there is no stream.
  kj::Maybe<Stream&> find(uint64_t slot);

  // Time passes only while somebody is waited for: tick() each second while needsTicks().
  bool needsTicks() const { return timed > 0 || isSettling; }
  void tick();

  // Ends all streams, and tells those who offered some. The guest is told nothing.
  void closeAll();

  // All streams are gone, and the guest is told so (§5.10.6.7.1): its connections end, its
  // listeners stay, and it looks at its cid again. For a device that was attached anew.
  //
  // A stream that the guest hears of before that would end with the others. So until the driver has
  // offered a buffer for events anew, as it does when it has dealt with one, or for SETTLE_TICKS at
  // most, nothing else passes.
  void transportReset();

 private:
  struct Reset {  // a refusal to a stream nobody knows
    StreamKey key;
    uint16_t type;
  };
  static constexpr size_t MOST_RESETS = 256;  // one for each buffer of a full transmit queue

  // Ticks. A guest under load answers late; Linux itself waits 2 s for others, and 8 s to leave.
  static constexpr uint32_t ANSWER_TICKS = 10;
  static constexpr uint32_t DRAIN_TICKS = 30;  // without a byte taken
  // A guest gives credit by itself when its reader has made room. Asked at once, it would give
  // little, and be asked again for each little.
  static constexpr uint32_t CREDIT_TICKS = 1;
  // Without a packet of the guest's. Its reader may be slow, and a reset would throw away what is
  // unread: Linux confirms when all is read.
  static constexpr uint32_t LEAVE_TICKS = 60;
  static constexpr uint32_t SETTLE_TICKS = 1;

  // Ports of clients of the host: far from those that servers have.
  static constexpr uint32_t FIRST_CLIENT_PORT = 1u << 30;
  static constexpr uint32_t LAST_CLIENT_PORT = (1u << 31) - 1;

  // From the guest.
  void serveTransmit();
  uint32_t receive(virtio::Chain& chain);
  void receiveForNone(const PacketHeader& header);
  void receiveFor(Stream& stream, const PacketHeader& header, virtio::Chain& chain);
  void receiveData(Stream& stream, const PacketHeader& header, virtio::Chain& chain);
  void receiveShutdown(Stream& stream, const PacketHeader& header);
  void receiveResponse(Stream& stream);
  void refuse(const PacketHeader& header);
  void abort(Stream& stream, const PacketHeader& header);
  uint32_t writeThrough(Stream& stream, virtio::Chain& chain, uint32_t bytes);

  // From and to the host.
  void startAsking();
  void serveHost();
  void step(Stream& stream);
  void readLine(Stream& stream);
  void takeAnswer(Stream& stream);
  void flush(Stream& stream);
  void request(Stream& stream, uint32_t guestPort);
  void establish(Stream& stream);

  // To the guest.
  void serveReceive();
  bool deliver(Stream& stream);
  bool deliverData(Stream& stream);
  bool deliverEnd(Stream& stream);
  bool send(Stream& stream, uint16_t op, uint32_t flags = 0);
  PacketHeader headerTo(const StreamKey& key, uint16_t op) const;
  void serveEvent();
  bool settles();
  Turn endTurn();
  void takeEventBuffers();

  // Ends.
  void release(Stream& stream);
  void doom(Stream& stream);
  void finish(Stream& stream);
  void tellEnd(Stream& stream);
  void wait(Stream& stream, uint32_t ticks);
  void waitNoMore(Stream& stream);
  void expire(Stream& stream);

  const uint64_t guestCid;
  HostSide& host;
  const Rings rings;
  kj::Maybe<ReceiveBuffers> buffers;
  StreamTable table;
  SlotQueue hostWork;   // something to look at on the host's side
  SlotQueue guestWork;  // something for the guest, it may be
  SlotQueue toAsk;      // wait for their turn with HostSide::connect()
  uint32_t asked = 0;   // attempts under way
  Reset resets[MOST_RESETS];
  size_t firstReset = 0;
  size_t resetCount = 0;
  uint32_t& nextPort;
  kj::Vector<virtio::Chain> eventBuffers;  // taken, for what may be told later
  uint32_t now = 0;                        // ticks
  uint32_t timed = 0;                      // streams with a deadline
  bool owesEvent = false;
  bool isSettling = false;    // after a transport reset
  uint32_t settledAt = 0;     // in ticks, at the latest
  size_t buffersAwaited = 0;  // that came back with or before the event, to be offered anew
  bool starved = false;       // something is for the guest, and there is no buffer
};

}  // namespace troupe::vsock
