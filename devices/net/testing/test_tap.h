#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/vector.h>

#include "devices/net/testing/net_driver.h"

namespace troupe::net::testing {

// A tap in a network namespace of the test's own, up, and a packet socket on its host side. What is
// sent through that reaches the tap's queues as the kernel's own frames would, with the virtio
// header they have; what is written to a queue arrives there.
class TestTap {
 public:
  // The calling process moves to a new namespace, for good. Throws where it may not, or where
  // /dev/net/tun is not to be had.
  explicit TestTap(uint16_t queues);
  KJ_DISALLOW_COPY(TestTap);

  int queue(uint16_t i) const { return queues[i]; }

  // False when the kernel dropped it, since its queue is full.
  bool send(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame);
  // The next frame written to the tap, with its header; none when there is none.
  kj::Maybe<Bytes> receive();

  // Whether the kernel's taps have USO: Linux from 6.2 on.
  bool hasUdpSegments() const { return udpSegments; }

  // The interface goes, as with `ip link delete`.
  void remove();

 private:
  kj::Vector<kj::AutoCloseFd> queues;
  kj::AutoCloseFd host;
  int interfaceIndex = 0;
  bool udpSegments = false;
};

// IPv4 from port `port` on, with so much of payload: TCP or UDP, its checksum left to be filled in
// as `header` says. Larger than `segment` bytes of payload, it is to be cut up.
struct Packet {
  virtio::NetHeader header;
  Bytes frame;
};
Packet tcpPacket(const MacAddress& destination, const MacAddress& source, size_t payload,
                 uint16_t segment);
Packet udpPacket(const MacAddress& destination, const MacAddress& source, size_t payload,
                 uint16_t segment);
Bytes udpFrame(const MacAddress& destination, const MacAddress& source, uint16_t port);

}  // namespace troupe::net::testing
