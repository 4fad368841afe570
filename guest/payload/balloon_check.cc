#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_STATS_VQ = 1 << 1;  // virtio 1.2, §5.5.3
constexpr uint64_t FEATURE_REPORTING = 1 << 5;
enum Queue : uint16_t { INFLATE = 0, DEFLATE = 1, STATISTICS = 2, REPORTING = 4 };  // §5.5.2
constexpr unsigned ACTUAL_OFFSET = 4;                                               // §5.5.4

constexpr unsigned PAGE = 4096;
constexpr unsigned MIB = 1 << 20;
constexpr unsigned PAGES_AT_ONCE = 256;
constexpr uint64_t LOOKED_AT = 4 * MIB;  // put into the balloon, and read again
constexpr uint64_t KEPT = 16 * MIB;      // put into it for good
constexpr uint64_t REPORTED = 4 * MIB;   // free, as the device is told

uint8_t* filled(uint64_t bytes) {
  auto memory = static_cast<uint8_t*>(allocate(bytes));
  if (memory) memset(memory, 0x5a, bytes);
  return memory;
}

// Bytes that are not zero, looked at page by page.
unsigned remains(const volatile uint8_t* memory, uint64_t bytes) {
  unsigned result = 0;
  for (uint64_t i = 0; i < bytes; i += PAGE)
    result += memory[i] != 0;
  return result;
}

// Hands the device a list of the pages of [memory, memory + bytes), piece by piece.
bool sendPages(VirtioDevice& device, Ring& ring, uint16_t queue, uint32_t* numbers,
               const uint8_t* memory, uint64_t bytes) {
  uint64_t first = reinterpret_cast<uint64_t>(memory) / PAGE;
  for (uint64_t page = 0; page < bytes / PAGE; page += PAGES_AT_ONCE) {
    for (unsigned i = 0; i < PAGES_AT_ONCE; ++i)
      numbers[i] = first + page + i;
    ring.descriptor(0) = {reinterpret_cast<uint64_t>(numbers), PAGES_AT_ONCE * 4, 0, 0};
    ring.offer(0);
    if (!device.publishForInterrupt(ring, queue)) return false;
    ring.take();
  }
  return true;
}

// Two statistics: tag 4, free memory, and tag 5, all of it.
bool sendStatistics(VirtioDevice& device, Ring& ring) {
  auto bytes = static_cast<uint8_t*>(allocate(PAGE));
  if (!bytes) return false;
  bytes[0] = 4;
  bytes[4] = 0x10;  // value 0x100000 in bytes 2 to 9
  bytes[10] = 5;
  bytes[14] = 0x20;
  ring.descriptor(0) = {reinterpret_cast<uint64_t>(bytes), 20, 0, 0};
  ring.offer(0);
  device.publish(ring, STATISTICS);
  return true;
}

}  // namespace

void checkBalloon(const DriverContext& context, const PciFunction& function, unsigned number) {
  Subject subject{"balloon", number};
  VirtioDevice device;
  Ring inflate, deflate, statistics, reporting;
  bool started = device.attach(context, function) &&
                 device.negotiate(FEATURE_STATS_VQ | FEATURE_REPORTING) &&
                 device.addQueue(INFLATE, 128, Completion::INTERRUPT, inflate) &&
                 device.addQueue(DEFLATE, 128, Completion::INTERRUPT, deflate) &&
                 (!device.has(FEATURE_STATS_VQ) ||
                  device.addQueue(STATISTICS, 16, Completion::POLL, statistics)) &&
                 (!device.has(FEATURE_REPORTING) ||
                  device.addQueue(REPORTING, 32, Completion::INTERRUPT, reporting)) &&
                 device.start();
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{device.offered()})) {
    return;
  }
  auto numbers = static_cast<uint32_t*>(allocate(PAGES_AT_ONCE * 4));
  auto lookedAt = filled(LOOKED_AT);
  auto kept = filled(KEPT);
  auto reported = filled(REPORTED);
  if (!check(numbers && lookedAt && kept && reported, subject, "memory",
             (LOOKED_AT + KEPT + REPORTED) / MIB, " MiB")) {
    return;
  }

  bool inflated = sendPages(device, inflate, INFLATE, numbers, lookedAt, LOOKED_AT) &&
                  sendPages(device, inflate, INFLATE, numbers, kept, KEPT);
  if (!check(inflated, subject, "inflate", (LOOKED_AT + KEPT) / MIB, " MiB")) return;
  bool deflated = sendPages(device, deflate, DEFLATE, numbers, lookedAt, LOOKED_AT);
  check(deflated, subject, "deflate", LOOKED_AT / MIB, " MiB");
  // Not what was there, whoever is the host: the pages are new ones.
  unsigned left = remains(lookedAt, LOOKED_AT);
  check(left == 0, subject, "zeroes", left, " of ", LOOKED_AT / PAGE, " pages are as before");
  device.setConfig<uint32_t>(ACTUAL_OFFSET, KEPT / PAGE);

  if (device.has(FEATURE_REPORTING)) {
    reporting.descriptor(0) = {reinterpret_cast<uint64_t>(reported), uint32_t(REPORTED),
                               DESCRIPTOR_WRITE, 0};
    reporting.offer(0);
    bool answered = device.publishForInterrupt(reporting, REPORTING);
    uint32_t length = answered ? reporting.take().length : ~0u;
    check(answered && length == 0, subject, "report", REPORTED / MIB, " MiB");
  }
  if (device.has(FEATURE_STATS_VQ)) {
    check(sendStatistics(device, statistics), subject, "statistics", "2 sent");
  }
}

}  // namespace payload
