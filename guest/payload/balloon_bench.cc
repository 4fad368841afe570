#include "guest/payload/balloon_bench.h"

#include "guest/payload/balloon.h"
#include "guest/payload/report.h"
#include "guest/payload/samples.h"

namespace payload {

void benchBalloon(const DriverContext& context, const PciFunction& function,
                  const BenchOptions& options, TscRate rate) {
  Subject subject{"bench", 0};
  VirtioDevice device;
  Ring inflate, deflate;
  PageList list;
  Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
  bool started = device.attach(context, function) && device.negotiate(0) &&
                 device.addQueue(INFLATE_QUEUE, 128, completion, inflate) &&
                 device.addQueue(DEFLATE_QUEUE, 128, Completion::POLL, deflate) && device.start() &&
                 list.create();
  if (!check(started, subject, "start", "features ", Hex{device.offered()})) {
    return;
  }
  uint64_t stride = options.size;
  if (!check(stride % BALLOON_PAGE == 0, subject, "size", "a multiple of ", BALLOON_PAGE)) {
    return;
  }
  bool good = true;
  for (unsigned round = 0; good && round < options.rounds; ++round) {
    uint8_t* memory = touchedMemory(options.count * stride, 1);
    if (!check(memory, subject, "memory", options.count, " pages")) {
      return;
    }
    uint64_t start = readTsc();
    good = list.send(device, inflate, INFLATE_QUEUE, completion, memory, options.count, stride);
    uint64_t cycles = readTsc() - start;
    if (good) {
      print("bench balloon round=", round, " mode=", options.interrupts ? "irq" : "poll",
            " size=", stride, " count=", options.count,
            " pages_per_second=", perSecond(options.count, cycles, rate), " cycles=", cycles,
            " tsc_hz=", rate.hz, " tsc_from=", rate.source, "\n");
    }
  }
  check(good, subject, "inflate", good ? "all answered" : "no answer");
}

}  // namespace payload
