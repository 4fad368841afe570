#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_SIZE = 1 << 0;  // §5.3.3; for MULTIPORT see ports_check.cc
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

uint32_t writeNumber(char* to, unsigned number) {
  char digits[10];
  uint32_t length = 0;
  do {
    digits[length++] = '0' + number % 10;
    number /= 10;
  } while (number > 0);
  for (uint32_t i = 0; i < length; ++i) {
    to[i] = digits[length - 1 - i];
  }
  return length;
}

// "80x25;", as the device says now.
void writeSize(Console& console) {
  uint32_t length = writeNumber(console.output, console.device.config<uint16_t>(0));
  console.output[length++] = 'x';
  length += writeNumber(console.output + length, console.device.config<uint16_t>(2));
  console.output[length++] = ';';
  console.write(length);
}

// Sends back what comes, up to the first 'q'; answers an 's' with the console's size.
void echoInput(Console& console) {
  for (;;) {
    uint32_t length = console.read();
    bool asked = false;
    for (uint32_t i = 0; i < length; ++i) {
      if (console.input[i] == 'q') {
        return;
      }
      asked = asked || console.input[i] == 's';
      console.output[i] = console.input[i];
    }
    console.write(length);
    if (asked) {
      writeSize(console);
    }
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
