#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr unsigned DRAW = 256;  // bytes asked for at a time

// Queues one writable buffer of DRAW bytes.
void offerBuffer(Ring& ring, void* buffer) {
  ring.descriptor(0) = {reinterpret_cast<uint64_t>(buffer), DRAW, DESCRIPTOR_WRITE, 0};
  ring.offer(0);
}

// Different bytes among the first `length` of `bytes`.
unsigned distinct(const uint8_t* bytes, unsigned length) {
  bool seen[256] = {};
  unsigned result = 0;
  for (unsigned i = 0; i < length; ++i) {
    result += !seen[bytes[i]];
    seen[bytes[i]] = true;
  }
  return result;
}

}  // namespace

void checkRng(const DriverContext& context, const PciFunction& function, unsigned number) {
  Subject subject{"rng", number};
  VirtioDevice device;
  Ring ring;
  auto first = static_cast<uint8_t*>(allocate(DRAW));
  auto second = static_cast<uint8_t*>(allocate(DRAW));
  bool started = first && second && device.attach(context, function) && device.negotiate(0) &&
                 device.addQueue(0, 8, Completion::INTERRUPT, ring) && device.start();
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{device.offered()})) {
    return;
  }
  offerBuffer(ring, first);
  bool interrupted = device.publishForInterrupt(ring, 0);
  uint32_t drawn = ring.hasUsed() ? ring.take().length : 0;
  if (!check(interrupted && drawn > 0 && drawn <= DRAW, subject, "interrupt", drawn, " bytes")) {
    return;
  }
  // 16 bytes or more with fewer than 4 values among them do not happen in a universe's lifetime.
  unsigned values = distinct(first, drawn);
  check(drawn < 16 || values >= 4, subject, "bytes", values, " different values");
  offerBuffer(ring, second);
  device.publish(ring, 0);
  uint32_t again = device.await(ring, Completion::POLL) ? ring.take().length : 0;
  uint32_t shorter = again < drawn ? again : drawn;
  check(again > 0 && (shorter < 8 || memcmp(first, second, shorter) != 0), subject, "fresh", again,
        " more bytes");
}

}  // namespace payload
