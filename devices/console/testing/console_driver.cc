#include "devices/console/testing/console_driver.h"

#include <endian.h>
#include <kj/debug.h>

#include <cstring>
#include <ostream>

#include "devices/console/testing/loop.h"

namespace troupe::console::testing {

using virtio::testing::Buffer;
using virtio::testing::FakeBroker;
using virtio::testing::FakeDriver;

void PrintTo(const Heard& heard, std::ostream* to) {
  *to << "event " << heard.event << " of port " << heard.port << ", value " << heard.value;
  if (!heard.more.empty()) *to << ", and " << heard.more.size() << " bytes \"" << heard.more << '"';
}

ConsoleDriver::ConsoleDriver(FakeBroker& broker, uint16_t ports)
    : broker(broker),
      ram(broker.ram()),
      queues(kj::heapArray<kj::Own<FakeDriver>>(2 + 2 * ports)) {}

void ConsoleDriver::activate(uint64_t features) {
  virtio::RingFeatures ring = {(features & virtio::F_INDIRECT_DESC) != 0,
                               (features & virtio::F_EVENT_IDX) != 0};
  auto request = broker.device().activateRequest();
  request.setFeatures(features);
  auto layouts = request.initQueues(queues.size());
  for (uint16_t i = 0; i < queues.size(); ++i) {
    queues[i] = kj::heap<FakeDriver>(ram, 64, ring);
    auto layout = queues[i]->layout();
    layouts[i].setIndex(i);
    layouts[i].setSize(layout.size);
    layouts[i].setDescriptorTable(layout.descriptorTable);
    layouts[i].setAvailableRing(layout.availableRing);
    layouts[i].setUsedRing(layout.usedRing);
  }
  broker.await(request.send().ignoreResult());
  controlBuffers.clear();
  heard = 0;
}

void ConsoleDriver::print(uint16_t port, const std::string& text) {
  transmit(port).add({transmit(port).readableBuffer(bytes(text))});
  broker.waitForUsed(transmitQueueOf(port), transmit(port));
}

Buffer ConsoleDriver::offer(uint16_t port, uint32_t size) {
  auto buffer = receive(port).writableBuffer(size);
  receive(port).add({buffer});
  if (receive(port).shouldKick()) broker.kick(receiveQueueOf(port));
  return buffer;
}

std::string ConsoleDriver::input(uint16_t port, const Buffer& buffer) {
  auto used = broker.waitForUsed(receiveQueueOf(port), receive(port));
  return inRam(buffer, used.written);
}

void ConsoleDriver::say(uint16_t event, uint16_t value, uint32_t port) {
  ControlMessage message = {htole32(port), htole16(event), htole16(value)};
  sayRaw(kj::arrayPtr(&message, 1).asBytes());
}

void ConsoleDriver::sayRaw(kj::ArrayPtr<const kj::byte> message) {
  auto& control = queue(CONTROL_TRANSMIT_QUEUE);
  control.add({control.readableBuffer(message)});
  auto used = broker.waitForUsed(CONTROL_TRANSMIT_QUEUE, control);
  KJ_ASSERT(used.written == 0);
}

void ConsoleDriver::offerControl(int count, uint32_t size) {
  auto& control = queue(CONTROL_RECEIVE_QUEUE);
  for (int i = 0; i < count; ++i) {
    controlBuffers.add(control.writableBuffer(size));
    control.add({controlBuffers.back()});
  }
  if (control.shouldKick()) broker.kick(CONTROL_RECEIVE_QUEUE);
}

Heard ConsoleDriver::hear() {
  auto used = broker.waitForUsed(CONTROL_RECEIVE_QUEUE, queue(CONTROL_RECEIVE_QUEUE));
  auto text = inRam(controlBuffers[heard++], used.written);
  ControlMessage head;
  KJ_REQUIRE(text.size() >= sizeof(head), text.size());
  memcpy(&head, text.data(), sizeof(head));
  return {le32toh(head.port), le16toh(head.event), le16toh(head.value), text.substr(sizeof(head))};
}

std::string ConsoleDriver::inRam(const Buffer& buffer, size_t size) {
  auto data = ram.bytes(buffer.address, size);
  return std::string(reinterpret_cast<const char*>(data.begin()), data.size());
}

}  // namespace troupe::console::testing
