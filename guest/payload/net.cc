#include "guest/payload/net.h"

#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_MAC = 1 << 5;  // §5.1.3

}  // namespace

bool NetCard::start(const DriverContext& context, const PciFunction& function,
                    Completion completion) {
  device = VirtioDevice();
  if (!device.attach(context, function) || !device.negotiate(FEATURE_MAC)) {
    return false;
  }
  for (unsigned i = 0; i < 2; ++i) {
    if (!device.addQueue(i, SLOTS, completion, rings[i])) {
      return false;
    }
  }
  receiving = static_cast<Buffer*>(allocate(receiveRing().size() * sizeof(Buffer)));
  sending = static_cast<Buffer*>(allocate(sendRing().size() * sizeof(Buffer)));
  if (!receiving || !sending) {
    return false;
  }
  for (unsigned i = 0; i < MAC_BYTES; ++i) {
    address[i] = device.config<uint8_t>(i);
  }
  for (unsigned slot = 0; slot < receiveRing().size(); ++slot) {
    receiveRing().descriptor(slot) = {reinterpret_cast<uint64_t>(&receiving[slot]), sizeof(Buffer),
                                      DESCRIPTOR_WRITE, 0};
    receiveRing().offer(slot);
  }
  return device.start();
}

void NetCard::send(unsigned slot, unsigned length) {
  sendRing().descriptor(slot) = {reinterpret_cast<uint64_t>(&sending[slot]), HEADER + length, 0, 0};
  sendRing().offer(slot);
}

unsigned NetCard::sent() {
  unsigned slot = sendRing().take().id;
  return slot < sendRing().size() ? slot : 0;
}

NetCard::Received NetCard::received() {
  UsedElement used = receiveRing().take();
  if (used.id >= receiveRing().size() || used.length < HEADER || used.length > sizeof(Buffer)) {
    return {0, receiving[0].frame, 0};
  }
  return {used.id, receiving[used.id].frame, used.length - HEADER};
}

}  // namespace payload
