#include "devices/console/port_control.h"

#include <endian.h>
#include <kj/debug.h>

#include <cstring>

#include "tests/fuzz/planted.h"

namespace troupe::console {

PortControl::PortControl(kj::Array<PortTraits> traits, kj::Array<uint64_t*> words)
    : kept(kj::mv(words)) {
  auto builder = kj::heapArrayBuilder<Port>(traits.size());
  for (auto& one : traits) {
    KJ_REQUIRE(one.name.size() <= LONGEST_PORT_NAME, "the name of a port is too long", one.name);
    builder.add(kj::mv(one));
  }
  ports = builder.finish();
  for (size_t i = 0; i < kept.size(); ++i)
    goOn(ports[i], *kept[i]);
}

// What has happened on the host meanwhile is to be said as well.
void PortControl::goOn(Port& port, uint64_t word) {
  port.ready = (word & READY) != 0;
  port.toldOpen = port.ready && (word & TOLD_OPEN) != 0;
  port.pending = word & ALL;
  port.guest.set((word & GUEST_OPEN) != 0);
  if (!port.ready) {
    port.pending &= ADDED;
    return;
  }
  port.pending &= ~(CLOSED | OPEN);
  if (port.toldOpen && !port.traits.hostOpen) port.pending |= CLOSED;
  if (!port.toldOpen && port.traits.hostOpen) port.pending |= OPEN;
}

void PortControl::keep() {
  for (size_t i = 0; i < kept.size(); ++i) {
    Port& port = ports[i];
    uint64_t word = port.pending | (port.ready ? READY : 0) | (port.toldOpen ? TOLD_OPEN : 0) |
                    (port.guest.isOpen() ? GUEST_OPEN : 0);
    __atomic_store_n(kept[i], word, __ATOMIC_RELEASE);
  }
}

void PortControl::take(const ControlMessage& message) {
  uint32_t index = le32toh(message.port);
  uint16_t event = le16toh(message.event);
  uint16_t value = le16toh(message.value);
  if (event == DEVICE_READY) {  // of no port
    if (value != 1) return;
    for (auto& port : ports)
      port.pending |= ADDED;
    added.raise();
    return;
  }
  if (index >= ports.size() && !fuzz::isPlanted(fuzz::Bug::UNKNOWN_PORT)) return;
  Port& port = ports.begin()[index];
  if (event == PORT_READY) {
    port.ready = value == 1;
    port.toldOpen = false;
    port.pending &= ADDED;
    if (port.ready) announce(port);
  } else if (event == PORT_OPEN && value <= 1) {
    port.guest.set(value == 1);
  }
}

void PortControl::announce(Port& port) {
  if (port.traits.kind == PortKind::CONSOLE) port.pending |= IS_CONSOLE;
  if (knowsSize(port)) port.pending |= SIZE;
  if (port.traits.name.size() > 0) port.pending |= NAME;
  if (port.traits.hostOpen) port.pending |= OPEN;
  added.raise();
}

bool PortControl::knowsSize(const Port& port) const {
  return port.traits.kind == PortKind::CONSOLE && port.traits.columns > 0 && port.traits.rows > 0;
}

void PortControl::hostChanged(uint16_t index, bool open) {
  Port& port = ports[index];
  port.traits.hostOpen = open;
  if (!port.ready) return;  // it is told when it is
  // Whatever was to be said of it before is out of date.
  port.pending &= ~(CLOSED | OPEN);
  if (port.toldOpen) port.pending |= CLOSED;
  if (open) port.pending |= OPEN;
  added.raise();
}

void PortControl::resize(uint16_t index, uint16_t columns, uint16_t rows) {
  Port& port = ports[index];
  port.traits.columns = columns;
  port.traits.rows = rows;
  if (!port.ready || !knowsSize(port)) return;
  port.pending |= SIZE;
  added.raise();
}

bool PortControl::hasNext() const {
  for (auto& port : ports) {
    if (port.pending != 0) return true;
  }
  return false;
}

kj::Promise<void> PortControl::whenNext() {
  if (hasNext()) return kj::READY_NOW;
  return added.wait();
}

size_t PortControl::next(kj::ArrayPtr<kj::byte> message) {
  KJ_REQUIRE(message.size() >= LONGEST_MESSAGE);
  for (uint16_t i = 0; i < ports.size(); ++i) {
    Port& port = ports[i];
    if (port.pending == 0) continue;
    uint8_t lowest = port.pending & -port.pending;
    port.pending &= ~lowest;
    return say(i, port, lowest, message);
  }
  return 0;
}

size_t PortControl::say(uint16_t index, Port& port, uint8_t what, kj::ArrayPtr<kj::byte> message) {
  auto put = [&](uint16_t event, uint16_t value, kj::ArrayPtr<const kj::byte> more) {
    ControlMessage head = {htole32(index), htole16(event), htole16(value)};
    memcpy(message.begin(), &head, sizeof(head));
    if (more.size() > 0) memcpy(message.begin() + sizeof(head), more.begin(), more.size());
    return sizeof(head) + more.size();
  };
  switch (what) {
    case ADDED:
      return put(DEVICE_ADD, 1, nullptr);
    case IS_CONSOLE:
      return put(CONSOLE_PORT, 1, nullptr);
    case SIZE: {
      ControlResize size = {htole16(port.traits.columns), htole16(port.traits.rows)};
      return put(RESIZE, 1, kj::arrayPtr(&size, 1).asBytes());
    }
    case NAME:
      return put(PORT_NAME, 1, port.traits.name.asBytes());
    default:
      port.toldOpen = what == OPEN;
      return put(PORT_OPEN, port.toldOpen, nullptr);
  }
}

}  // namespace troupe::console
