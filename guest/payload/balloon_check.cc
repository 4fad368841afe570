#include "guest/payload/balloon.h"
#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_STATS_VQ = 1 << 1;  // virtio 1.2, §5.5.3
constexpr uint64_t FEATURE_REPORTING = 1 << 5;
constexpr uint16_t STATISTICS = 2;  // §5.5.2
constexpr uint16_t REPORTING = 4;
constexpr unsigned ACTUAL_OFFSET = 4;  // §5.5.4

constexpr unsigned PAGE = BALLOON_PAGE;
constexpr unsigned MIB = 1 << 20;
constexpr uint64_t LOOKED_AT = 4 * MIB;  // put into the balloon, and read again
constexpr uint64_t KEPT = 16 * MIB;      // put into it for good
constexpr uint64_t REPORTED = 4 * MIB;   // free, as the device is told

// Bytes that are not zero, looked at page by page.
unsigned remains(const volatile uint8_t* memory, uint64_t bytes) {
  unsigned result = 0;
  for (uint64_t i = 0; i < bytes; i += PAGE)
    result += memory[i] != 0;
  return result;
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
                 device.addQueue(INFLATE_QUEUE, 128, Completion::INTERRUPT, inflate) &&
                 device.addQueue(DEFLATE_QUEUE, 128, Completion::INTERRUPT, deflate) &&
                 (!device.has(FEATURE_STATS_VQ) ||
                  device.addQueue(STATISTICS, 16, Completion::POLL, statistics)) &&
                 (!device.has(FEATURE_REPORTING) ||
                  device.addQueue(REPORTING, 32, Completion::INTERRUPT, reporting)) &&
                 device.start();
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{device.offered()})) {
    return;
  }
  PageList list;
  auto lookedAt = touchedMemory(LOOKED_AT, 0x5a);
  auto kept = touchedMemory(KEPT, 0x5a);
  auto reported = touchedMemory(REPORTED, 0x5a);
  if (!check(list.create() && lookedAt && kept && reported, subject, "memory",
             (LOOKED_AT + KEPT + REPORTED) / MIB, " MiB")) {
    return;
  }

  auto send = [&](Ring& ring, uint16_t queue, const uint8_t* memory, uint64_t bytes) {
    return list.send(device, ring, queue, Completion::INTERRUPT, memory, bytes / PAGE);
  };
  bool inflated =
      send(inflate, INFLATE_QUEUE, lookedAt, LOOKED_AT) && send(inflate, INFLATE_QUEUE, kept, KEPT);
  if (!check(inflated, subject, "inflate", (LOOKED_AT + KEPT) / MIB, " MiB")) {
    return;
  }
  bool deflated = send(deflate, DEFLATE_QUEUE, lookedAt, LOOKED_AT);
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
