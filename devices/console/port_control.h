#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "devices/console/broadcast.h"
#include "devices/console/open_state.h"
#include "devices/console/wire.h"

namespace troupe::console {

enum class PortKind {
  CONSOLE,  // hvc0, hvc1, … of Linux
  SERIAL    // a plain byte stream: /dev/vport0p1, /dev/virtio-ports/NAME
};

// The most bytes of a port's name.
constexpr size_t LONGEST_PORT_NAME = 64;

// What the driver is told of one port. Size: 0 where it is not known.
struct PortTraits {
  PortKind kind;
  kj::String name;  // "" has none
  uint16_t columns;
  uint16_t rows;
  bool hostOpen;  // the host's side, at first
};

// The conversation over the control queues of a console (§5.3.6.2), for one life of a driver: what
// was said of each port, and what has yet to be. Knows no ring, no fd and no event loop.
//
// What has to be said is kept as a set of messages for each port, not as a queue of them: a driver
// that asks again and again, or takes nothing, makes nothing grow.
class PortControl {
 public:
  // The most bytes of a message to the driver.
  static constexpr size_t LONGEST_MESSAGE = sizeof(ControlMessage) + LONGEST_PORT_NAME;

  // `kept`: a word for each port that outlives the process, or nothing. Zeroes, or as a PortControl
  // left them: then the conversation goes on. Whatever they hold stands for some conversation.
  explicit PortControl(kj::Array<PortTraits> ports, kj::Array<uint64_t*> kept = nullptr);
  KJ_DISALLOW_COPY(PortControl);

  // A message of the driver, as it stood in memory. One of an event or a port that is not known, or
  // with a value nobody defined, changes nothing.
  void take(const ControlMessage& message);

  // Writes the next message for the driver to the front of `message` and returns its size; 0 when
  // there is none. It counts as said.
  size_t next(kj::ArrayPtr<kj::byte> message);
  bool hasNext() const;
  kj::Promise<void> whenNext();

  // Whether the driver's side of a port takes input: somebody there has opened it.
  OpenState& guest(uint16_t port) { return ports[port].guest; }

  // The host's side has changed and is now `open`. A driver that knows it as open and hears that it
  // is learns that it was closed in between: somebody else may be there.
  void hostChanged(uint16_t port, bool open);

  void resize(uint16_t port, uint16_t columns, uint16_t rows);

  // Writes down for a successor how things stand: whatever it hears or says twice changes nothing,
  // so this comes before a driver is told that it was heard, and when it was told what was said.
  void keep();

 private:
  // Messages that wait to be sent, in this order.
  enum Pending : uint8_t {
    ADDED = 1 << 0,
    IS_CONSOLE = 1 << 1,
    SIZE = 1 << 2,
    NAME = 1 << 3,
    CLOSED = 1 << 4,
    OPEN = 1 << 5,
    ALL = (1 << 6) - 1,
  };
  // Of a word that is kept, above the messages.
  static constexpr uint64_t READY = 1 << 8;
  static constexpr uint64_t TOLD_OPEN = 1 << 9;
  static constexpr uint64_t GUEST_OPEN = 1 << 10;

  struct Port {
    PortTraits traits;
    bool ready = false;     // the driver will use it
    bool toldOpen = false;  // that the host's side is
    uint8_t pending = 0;
    OpenState guest{false};

    explicit Port(PortTraits traits) : traits(kj::mv(traits)) {}
  };

  void goOn(Port& port, uint64_t kept);
  void announce(Port& port);
  bool knowsSize(const Port& port) const;
  static size_t say(uint16_t index, Port& port, uint8_t what, kj::ArrayPtr<kj::byte> message);

  kj::Array<Port> ports;
  kj::Array<uint64_t*> kept;
  Broadcast added;
};

}  // namespace troupe::console
