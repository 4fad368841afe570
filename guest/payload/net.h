#pragma once

#include <stdint.h>

#include "guest/payload/virtio_device.h"

// One virtio-net device (virtio 1.2, §5.1) with a pair of queues and no offloads.
namespace payload {

constexpr unsigned MAC_BYTES = 6;
constexpr unsigned SHORTEST_FRAME = 60;  // without the checksum that hardware appends
constexpr unsigned LONGEST_FRAME = 1514;

class NetCard {
 public:
  static constexpr unsigned SLOTS = 256;  // of each queue, at most

  // Resets the device and brings it up. Buffers for frames that arrive are offered at once, but not
  // published.
  bool start(const DriverContext& context, const PciFunction& function, Completion completion);

  const uint8_t* mac() const { return address; }
  unsigned sendSlots() const { return sendRing().size(); }
  VirtioDevice& virtioDevice() { return device; }

  // Where the frame of a slot is written; at most LONGEST_FRAME bytes.
  uint8_t* frame(unsigned slot) { return sending[slot].frame; }
  // Queues the frame of `slot`.
  void send(unsigned slot, unsigned length);
  void publishSent() { device.publish(sendRing(), SEND); }
  bool hasSent() const { return sendRing().hasUsed(); }
  unsigned sent();  // the slot of one that is out, after hasSent()
  bool awaitSent(Completion completion) { return device.await(sendRing(), completion); }

  void publishBuffers() { device.publish(receiveRing(), RECEIVE); }
  bool hasReceived() const { return receiveRing().hasUsed(); }
  bool awaitReceived(Completion completion) { return device.await(receiveRing(), completion); }

  // A frame that arrived, after hasReceived(). Its buffer is offered again by release().
  struct Received {
    unsigned slot;
    const uint8_t* frame;
    unsigned length;  // 0: what the device said makes no sense
  };
  Received received();
  void release(unsigned slot) { receiveRing().offer(slot); }

 private:
  static constexpr unsigned RECEIVE = 0, SEND = 1;  // §5.1.2
  static constexpr unsigned HEADER = 12;            // struct virtio_net_hdr, §5.1.6

  struct Buffer {
    uint8_t header[HEADER];
    uint8_t frame[2048 - HEADER];
  };

  Ring& receiveRing() { return rings[RECEIVE]; }
  const Ring& receiveRing() const { return rings[RECEIVE]; }
  Ring& sendRing() { return rings[SEND]; }
  const Ring& sendRing() const { return rings[SEND]; }

  VirtioDevice device;
  Ring rings[2];
  Buffer* receiving = nullptr;
  Buffer* sending = nullptr;
  uint8_t address[MAC_BYTES] = {};
};

}  // namespace payload
