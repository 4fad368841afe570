#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_SIZE = 1 << 0;  // §5.3.3; MULTIPORT is never accepted
constexpr uint16_t RECEIVE = 0;            // §5.3.2
constexpr uint16_t TRANSMIT = 1;
constexpr unsigned BUFFER = 4096;

constexpr char LINE[] = "payload: hello from the virtio console\n";

struct Console {
  VirtioDevice device;
  Ring receive;
  Ring transmit;
  char* input;
  char* output;

  bool start(const DriverContext& context, const PciFunction& function) {
    input = static_cast<char*>(allocate(BUFFER));
    output = static_cast<char*>(allocate(BUFFER));
    return input && output && device.attach(context, function) && device.negotiate(FEATURE_SIZE) &&
           device.addQueue(RECEIVE, 8, Completion::INTERRUPT, receive) &&
           device.addQueue(TRANSMIT, 8, Completion::INTERRUPT, transmit) && device.start();
  }

  void offerOutput(uint32_t length) {
    transmit.descriptor(0) = {reinterpret_cast<uint64_t>(output), length, 0, 0};
    transmit.offer(0);
  }

  bool write(uint32_t length) {
    offerOutput(length);
    device.publish(transmit, TRANSMIT);
    return device.await(transmit, Completion::POLL) && (transmit.take(), true);
  }

  // Waits for input without end; how many bytes came.
  uint32_t read() {
    receive.descriptor(0) = {reinterpret_cast<uint64_t>(input), BUFFER, DESCRIPTOR_WRITE, 0};
    receive.offer(0);
    device.publish(receive, RECEIVE);
    while (!device.await(receive, Completion::INTERRUPT)) {
    }
    uint32_t length = receive.take().length;
    return length < BUFFER ? length : BUFFER;
  }
};

// Sends back what comes, up to the first 'q'.
void echoInput(Console& console) {
  for (;;) {
    uint32_t length = console.read();
    for (uint32_t i = 0; i < length; ++i) {
      if (console.input[i] == 'q') {
        return;
      }
      console.output[i] = console.input[i];
    }
    console.write(length);
  }
}

}  // namespace

void checkConsole(const DriverContext& context, const PciFunction& function, unsigned number,
                  bool echo) {
  Subject subject{"console", number};
  Console console{};
  bool started = console.start(context, function);
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{console.device.offered()})) {
    return;
  }
  if (console.device.has(FEATURE_SIZE)) {
    check(true, subject, "size", console.device.config<uint16_t>(0), " columns, ",
          console.device.config<uint16_t>(2), " rows");
  }
  memcpy(console.output, LINE, sizeof(LINE) - 1);
  console.offerOutput(sizeof(LINE) - 1);
  bool interrupted = console.device.publishForInterrupt(console.transmit, TRANSMIT);
  bool written = console.transmit.hasUsed() && (console.transmit.take(), true);
  check(interrupted, subject, "interrupt", "after a line was written");
  check(written && console.write(sizeof(LINE) - 1), subject, "write", "two lines of ",
        static_cast<uint64_t>(sizeof(LINE) - 1), " bytes");
  if (echo) {
    echoInput(console);
  }
}

}  // namespace payload
