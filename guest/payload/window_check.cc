#include "guest/payload/checks.h"
#include "guest/payload/disk.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr Subject WINDOW{"window", 0};
constexpr unsigned TEXT = 24;        // what the host has written there, at the beginning
constexpr unsigned COUNT = 32;       // a word that is counted up
constexpr unsigned ANSWER = 64;      // where the guest writes
constexpr unsigned BUFFER = 512;     // for a device that is not to get there
constexpr uint8_t NEEDS_RESET = 64;  // virtio 1.2, §2.1
constexpr char WORDS[] = "written by the guest";

bool isRam(const StartInfo& info, uint64_t address) {
  for (unsigned i = 0; i < info.ramCount; ++i) {
    if (info.ram[i].start <= address && address < info.ram[i].end) {
      return true;
    }
  }
  return false;
}

volatile uint8_t* bytesAt(uint64_t address) {
  return static_cast<volatile uint8_t*>(mapThrough(address, 4096));
}

}  // namespace

void checkWindow(const StartInfo& info, uint64_t address) {
  check(!isRam(info, address), WINDOW, "map", Hex{address}, " is no RAM");
  auto bytes = bytesAt(address);
  char text[TEXT + 1] = {};
  for (unsigned i = 0; i < TEXT; ++i) {
    text[i] = bytes[i] >= ' ' && bytes[i] < 0x7f ? bytes[i] : 0;
    if (!text[i]) {
      break;
    }
  }
  auto count = reinterpret_cast<volatile uint32_t*>(bytes + COUNT);
  uint32_t before = *count;
  *count = before + 1;
  for (unsigned i = 0; i < sizeof(WORDS); ++i) {
    bytes[ANSWER + i] = WORDS[i];
  }
  bool same = *count == before + 1;
  for (unsigned i = 0; i < sizeof(WORDS); ++i) {
    same = same && bytes[ANSWER + i] == static_cast<uint8_t>(WORDS[i]);
  }
  check(same, WINDOW, "seen", "\"", static_cast<const char*>(text), "\", time ", before + 1);
}

void checkNoDiskReaches(const DriverContext& context, const PciFunction& function, unsigned number,
                        uint64_t address) {
  Subject subject{"blk", number};
  Disk disk;
  if (!disk.start(context, function, Completion::POLL, 1)) {
    return;
  }
  auto bytes = bytesAt(address) + BUFFER;
  bytes[0] = 0x5a;
  disk.prepare(0, BLK_T_IN, reinterpret_cast<void*>(address + BUFFER), SECTOR);
  disk.offer(0, 0);
  disk.publish();
  auto& device = disk.virtioDevice();
  uint64_t start = readTsc();
  while (!disk.hasFinished() && !(device.status() & NEEDS_RESET) &&
         readTsc() - start < context.timeoutCycles) {
    pause();
  }
  check((device.status() & NEEDS_RESET) && bytes[0] == 0x5a, subject, "no window", "device status ",
        Hex{device.status()});
}

}  // namespace payload
