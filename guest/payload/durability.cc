#include "guest/payload/durability.h"

#include "guest/payload/disk.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

// Odd, so that it comes to every place before it comes to one again.
constexpr uint64_t STRIDE = 0x9e3779b1;

constexpr unsigned MAX_DEPTH = 64;

// What every sector consists of, 16 times the same.
struct Record {
  uint64_t seed;
  uint64_t number;
  uint64_t sector;
  uint64_t sum;
};
static_assert(SECTOR % sizeof(Record) == 0, "a sector holds whole records");

void fill(void* block, unsigned size, uint64_t seed, uint64_t number, uint64_t sector) {
  auto record = static_cast<Record*>(block);
  for (unsigned offset = 0; offset < size; offset += SECTOR, ++sector) {
    Record own{seed, number, sector, (number * 0x9e3779b97f4a7c15 ^ sector) + seed};
    for (unsigned i = 0; i < SECTOR / sizeof(Record); ++i) {
      *record++ = own;
    }
  }
}

class Writer {
 public:
  // `places`: a power of two.
  Writer(Disk& disk, const BenchOptions& options, uint64_t places)
      : disk(disk), options(options), places(places) {}

  bool prepare() {
    for (unsigned slot = 0; slot < options.depth; ++slot) {
      buffers[slot] = allocate(options.size);
      if (!buffers[slot]) {
        return false;
      }
      disk.prepare(slot, BLK_T_OUT, buffers[slot], options.size);
    }
    disk.prepare(options.depth, BLK_T_FLUSH, nullptr, 0);
    return true;
  }

  // While one group of blocks is flushed the next is written. False when a request failed or none
  // came back.
  bool run() {
    unsigned flushed = 0;
    unsigned written = 0;
    while (flushed < options.count) {
      unsigned sent = offerGroup(written);
      bool flushes = written > flushed;
      if (flushes) {
        disk.offer(options.depth, 0);
      }
      if (!awaitAll(sent + flushes)) {
        return false;
      }
      if (flushes) {
        flushed = written;
        print("flushed ", flushed, "\n");
      }
      written += sent;
    }
    return true;
  }

 private:
  Disk& disk;
  const BenchOptions& options;
  uint64_t places;
  void* buffers[MAX_DEPTH];

  unsigned offerGroup(unsigned written) {
    unsigned sent = 0;
    for (; sent < options.depth && written + sent < options.count; ++sent) {
      uint64_t number = written + sent + 1;
      uint64_t sector = (1 + number * STRIDE % places) * (options.size / SECTOR);
      fill(buffers[sent], options.size, options.seed, number, sector);
      disk.offer(sent, sector);
    }
    return sent;
  }

  bool awaitAll(unsigned requests) {
    disk.publish();
    Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
    for (; requests > 0; --requests) {
      if (!disk.await(completion) || disk.status(disk.finished()) != BLK_S_OK) {
        return false;
      }
    }
    return true;
  }
};

// The largest power of two of blocks that fits behind the first one.
uint64_t placesOf(const Disk& disk, unsigned size) {
  uint64_t blocks = disk.sectors() / (size / SECTOR);
  uint64_t places = 1;
  while (places * 2 < blocks) {
    places *= 2;
  }
  return places < blocks ? places : 0;
}

}  // namespace

void writeDurably(const DriverContext& context, const PciFunction& function,
                  const BenchOptions& options, bool mayScratch) {
  Subject subject{"bench", options.disk};
  Disk disk;
  Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
  unsigned slots = options.depth + 1;
  if (!check(disk.start(context, function, completion, slots), subject, "start", disk.slotCount(),
             " slots")) {
    return;
  }
  if (!disk.canFlush() || disk.readOnly() || !(mayScratch || disk.marked())) {
    check(false, subject, "write", "only on a scratch disk that can flush");
    return;
  }
  uint64_t places = placesOf(disk, options.size);
  if (slots > disk.slotCount() || options.depth > MAX_DEPTH || options.depth > places) {
    check(false, subject, "depth", "at most ", MAX_DEPTH, ", and ", places, " places");
    return;
  }
  Writer writer(disk, options, places);
  if (check(writer.prepare(), subject, "memory", options.depth, " buffers")) {
    print("durability: ", places, " places\n");
    check(writer.run(), subject, "requests", "all answered");
  }
}

}  // namespace payload
