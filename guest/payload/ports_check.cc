#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_MULTIPORT = 1 << 1;  // §5.3.3
constexpr unsigned PORT_COUNT = 4;       // where the configuration has max_nr_ports (§5.3.4)
constexpr uint16_t CONTROL_RECEIVE = 2;  // §5.3.2
constexpr uint16_t CONTROL_TRANSMIT = 3;
constexpr unsigned MOST_PORTS = VirtioDevice::MAX_QUEUES / 2 - 1;
constexpr unsigned BUFFERS = 16;  // for control messages
constexpr unsigned BUFFER = 256;

constexpr uint16_t DEVICE_READY = 0;  // §5.3.6.2
constexpr uint16_t DEVICE_ADD = 1;
constexpr uint16_t PORT_READY = 3;
constexpr uint16_t CONSOLE_PORT = 4;
constexpr uint16_t PORT_OPEN = 6;
constexpr uint16_t PORT_NAME = 7;

struct Message {
  uint32_t port;
  uint16_t event;
  uint16_t value;
};
static_assert(sizeof(Message) == 8, "layout fixed by §5.3.6.2");

constexpr char LINE[] = "payload: hello from port N\n";
constexpr unsigned DIGIT = sizeof(LINE) - 3;

uint16_t transmitQueue(unsigned port) {
  return port == 0 ? 1 : 2 * port + 3;
}

struct Ports {
  VirtioDevice device;
  Ring heard;
  Ring said;
  Ring transmit[MOST_PORTS];
  Ring receive[MOST_PORTS];
  unsigned count;
  char* buffers;  // BUFFERS of them
  char* output;

  bool attach(const DriverContext& context, const PciFunction& function) {
    buffers = static_cast<char*>(allocate(BUFFERS * BUFFER));
    output = static_cast<char*>(allocate(BUFFER));
    return buffers && output && device.attach(context, function) &&
           device.negotiate(FEATURE_MULTIPORT);
  }

  bool start() {
    count = device.config<uint32_t>(PORT_COUNT);
    if (count == 0 || count > MOST_PORTS) {
      return false;
    }
    if (!device.addQueue(CONTROL_RECEIVE, BUFFERS, Completion::POLL, heard) ||
        !device.addQueue(CONTROL_TRANSMIT, 8, Completion::POLL, said)) {
      return false;
    }
    for (unsigned port = 0; port < count; ++port) {
      uint16_t queue = transmitQueue(port);
      if (!device.addQueue(queue - 1, 8, Completion::POLL, receive[port]) ||
          !device.addQueue(queue, 8, Completion::POLL, transmit[port])) {
        return false;
      }
    }
    for (uint16_t i = 0; i < heard.size() && i < BUFFERS; ++i) {
      offerBuffer(i);
    }
    if (!device.start()) {
      return false;
    }
    // Some devices forget what there is no buffer for.
    device.publish(heard, CONTROL_RECEIVE);
    return true;
  }

  void offerBuffer(uint16_t index) {
    auto address = reinterpret_cast<uint64_t>(buffers + index * BUFFER);
    heard.descriptor(index) = {address, BUFFER, DESCRIPTOR_WRITE, 0};
    heard.offer(index);
  }

  bool send(Ring& ring, uint16_t queue, uint32_t length) {
    ring.descriptor(0) = {reinterpret_cast<uint64_t>(output), length, 0, 0};
    ring.offer(0);
    device.publish(ring, queue);
    return device.await(ring, Completion::POLL) && (ring.take(), true);
  }

  bool say(uint32_t port, uint16_t event) {
    Message message = {port, event, 1};
    memcpy(output, &message, sizeof(message));
    return send(said, CONTROL_TRANSMIT, sizeof(message));
  }

  // The next message; `text` gets what follows it, at most `size - 1` bytes. False after the
  // time-out, or when it is none.
  bool hear(Message& message, char* text, unsigned size) {
    if (!device.await(heard, Completion::POLL)) {
      return false;
    }
    UsedElement used = heard.take();
    if (used.id >= BUFFERS || used.length < sizeof(message) || used.length > BUFFER) {
      return false;
    }
    const char* buffer = buffers + used.id * BUFFER;
    memcpy(&message, buffer, sizeof(message));
    unsigned length = used.length - sizeof(message);
    length = length < size ? length : size - 1;
    memcpy(text, buffer + sizeof(message), length);
    text[length] = '\0';
    offerBuffer(used.id);
    device.publish(heard, CONTROL_RECEIVE);
    return true;
  }
};

// All that the device says of a port, up to its being open.
bool learn(Ports& ports, unsigned port, bool& isConsole, char* name, unsigned size) {
  char text[BUFFER];
  Message message = {};
  isConsole = false;
  name[0] = '\0';
  if (!ports.say(port, PORT_READY)) {
    return false;
  }
  do {
    if (!ports.hear(message, text, sizeof(text)) || message.port != port) {
      return false;
    }
    isConsole = isConsole || message.event == CONSOLE_PORT;
    if (message.event == PORT_NAME) {
      memcpy(name, text, size);
      name[size - 1] = '\0';
    }
  } while (message.event != PORT_OPEN);
  return ports.say(port, PORT_OPEN);
}

bool hearAdded(Ports& ports) {
  char text[BUFFER];
  Message message = {};
  if (!ports.say(0, DEVICE_READY)) {
    return false;
  }
  for (unsigned port = 0; port < ports.count; ++port) {
    bool added = ports.hear(message, text, sizeof(text)) && message.event == DEVICE_ADD &&
                 message.port == port;
    if (!added) {
      return false;
    }
  }
  return true;
}

}  // namespace

void checkPorts(const DriverContext& context, const PciFunction& function, unsigned number) {
  Subject subject{"console", number};
  static Ports ports;
  ports = {};
  if (!ports.attach(context, function) || !ports.device.has(FEATURE_MULTIPORT)) {
    return;
  }
  bool begun = ports.start() && hearAdded(ports);
  if (!check(begun, subject, "ports", ports.count)) {
    return;
  }
  for (unsigned port = 0; port < ports.count; ++port) {
    bool isConsole;
    char name[65];
    bool learnt = learn(ports, port, isConsole, name, sizeof(name));
    memcpy(ports.output, LINE, sizeof(LINE) - 1);
    ports.output[DIGIT] = '0' + port;
    bool written = ports.send(ports.transmit[port], transmitQueue(port), sizeof(LINE) - 1);
    check(learnt && written, subject, "port", port, isConsole ? ", console" : ", plain",
          name[0] != '\0' ? ", named " : "", static_cast<const char*>(name));
  }
}

}  // namespace payload
