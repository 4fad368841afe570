#include "guest/payload/bench.h"

#include "guest/payload/disk.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"
#include "guest/payload/samples.h"

namespace payload {
namespace {

constexpr unsigned MAX_DEPTH = 1024;

class Xorshift {
 public:
  explicit Xorshift(uint64_t seed) : state(seed | 1) {}
  // At least 0, less than `bound`, which is less than 2^32.
  uint64_t below(uint64_t bound) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return ((state * 0x2545f4914f6cdd1d) >> 32) * bound >> 32;
  }

 private:
  uint64_t state;
};

// Keeps `depth` requests in flight until `count` have ended.
class Load {
 public:
  Load(Disk& disk, const BenchOptions& options, uint64_t firstBlock)
      : disk(disk), options(options), firstBlock(firstBlock), random(readTsc()) {
    blockSectors = options.size / SECTOR;
    blocks = disk.sectors() / blockSectors - firstBlock;
    for (unsigned slot = 0; slot < options.depth; ++slot) {
      idle[slot] = slot;
    }
    idleCount = options.depth;
  }

  // Cycles of each request go to `samples` unless it is null. False when a request failed or none
  // came back.
  bool run(unsigned count, uint32_t* samples) {
    Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
    unsigned begun = 0;
    unsigned ended = 0;
    while (ended < count) {
      bool offered = false;
      while (idleCount > 0 && begun < count) {
        offerOne();
        ++begun;
        offered = true;
      }
      if (offered) {
        disk.publish();
      }
      if (!disk.hasFinished() && !disk.await(completion)) {
        return false;
      }
      while (disk.hasFinished()) {
        unsigned slot = disk.finished();
        if (disk.status(slot) != BLK_S_OK) {
          return false;
        }
        if (samples) {
          samples[ended] = readTsc() - startedAt[slot];
        }
        ++ended;
        idle[idleCount++] = slot;
      }
    }
    return true;
  }

 private:
  Disk& disk;
  const BenchOptions& options;
  uint64_t firstBlock;
  uint64_t blocks;
  unsigned blockSectors;
  Xorshift random;
  uint64_t startedAt[MAX_DEPTH];
  unsigned idle[MAX_DEPTH];
  unsigned idleCount;

  void offerOne() {
    unsigned slot = idle[--idleCount];
    startedAt[slot] = readTsc();
    disk.offer(slot, (firstBlock + random.below(blocks)) * blockSectors);
  }
};

struct Round {
  uint64_t cycles;
  uint64_t notifications;
  uint64_t interrupts;
};

void printRound(const BenchOptions& options, unsigned number, const Round& round, uint32_t* samples,
                TscRate rate) {
  unsigned count = options.count;
  heapSort(samples, count);
  auto at = [&](unsigned perMille) {
    return nanoseconds(samples[static_cast<uint64_t>(count - 1) * perMille / 1000], rate);
  };
  print("bench blk disk=", options.disk, " round=", number,
        " mode=", options.interrupts ? "irq" : "poll", " op=", options.write ? "write" : "read",
        " depth=", options.depth, " queues=", options.queues, " size=", options.size,
        " count=", count);
  print(" iops=", perSecond(count, round.cycles, rate), " p50_ns=", at(500), " p90_ns=", at(900),
        " p99_ns=", at(990), " p999_ns=", at(999), " max_ns=", at(1000));
  print(" notifications=", round.notifications, " interrupts=", round.interrupts,
        " cycles=", round.cycles, " p50_cycles=", samples[(count - 1) / 2], " tsc_hz=", rate.hz,
        " tsc_from=", rate.source, "\n");
}

bool prepareSlots(Disk& disk, const BenchOptions& options) {
  for (unsigned slot = 0; slot < options.depth; ++slot) {
    void* buffer = allocate(options.size);
    if (!buffer) {
      return false;
    }
    disk.prepare(slot, options.write ? BLK_T_OUT : BLK_T_IN, buffer, options.size);
  }
  return true;
}

}  // namespace

void benchDisk(const DriverContext& context, const PciFunction& function,
               const BenchOptions& options, bool mayScratch, TscRate rate) {
  Subject subject{"bench", options.disk};
  Disk disk;
  Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
  bool started = disk.start(context, function, completion, options.depth, options.queues);
  if (disk.queuesOffered() < options.queues) {
    check(false, subject, "queues", "the disk has ", disk.queuesOffered());
    return;
  }
  if (!check(started, subject, "start", disk.slotCount(), " slots")) {
    return;
  }
  if (options.depth > disk.slotCount() || options.depth > MAX_DEPTH) {
    check(false, subject, "depth", "at most ", disk.slotCount());
    return;
  }
  if (options.write && (disk.readOnly() || !(mayScratch || disk.marked()))) {
    check(false, subject, "write", "only on a scratch disk");
    return;
  }
  // Writes spare the block with the scratch mark.
  uint64_t firstBlock = options.write ? 1 : 0;
  if (disk.sectors() / (options.size / SECTOR) <= firstBlock) {
    check(false, subject, "size", "larger than the disk");
    return;
  }
  auto samples = static_cast<uint32_t*>(allocate(options.count * sizeof(uint32_t)));
  if (!check(samples && prepareSlots(disk, options), subject, "memory", options.depth,
             " buffers")) {
    return;
  }
  Load load(disk, options, firstBlock);
  bool good = load.run(options.warmup, nullptr);
  for (unsigned round = 0; good && round < options.rounds; ++round) {
    VirtioDevice& device = disk.virtioDevice();
    Round result{readTsc(), device.notifications, device.interrupts};
    good = load.run(options.count, samples);
    result = {readTsc() - result.cycles, device.notifications - result.notifications,
              device.interrupts - result.interrupts};
    if (good) {
      printRound(options, round, result, samples, rate);
    }
  }
  check(good, subject, "requests", "all answered");
}

}  // namespace payload
