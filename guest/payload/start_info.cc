#include "guest/payload/start_info.h"

#include "guest/payload/machine.h"
#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint32_t MAGIC = 0x336ec578;
constexpr uint32_t RAM = 1;

struct RawStartInfo {
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t moduleCount;
  uint64_t modules;
  uint64_t commandLine;
  uint64_t rsdp;
  uint64_t memoryMap;  // from version 1
  uint32_t memoryMapEntries;
  uint32_t reserved;
};
static_assert(sizeof(RawStartInfo) == 56, "layout fixed by the PVH boot ABI");

struct RawMemoryMapEntry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(RawMemoryMapEntry) == 24, "layout fixed by the PVH boot ABI");

}  // namespace

uint64_t StartInfo::ramBytes() const {
  uint64_t bytes = 0;
  for (unsigned i = 0; i < ramCount; ++i) {
    bytes += ram[i].end - ram[i].start;
  }
  return bytes;
}

bool readStartInfo(uint64_t address, StartInfo& info) {
  auto raw = load<RawStartInfo>(mapThrough(address, sizeof(RawStartInfo)));
  if (raw.magic != MAGIC) {
    return false;
  }
  if (raw.commandLine) {
    auto line = static_cast<const char*>(mapThrough(raw.commandLine, sizeof(info.commandLine)));
    unsigned i = 0;
    for (; i < sizeof(info.commandLine) - 1 && line[i]; ++i) {
      info.commandLine[i] = line[i];
    }
    info.commandLine[i] = 0;
  }
  info.rsdp = raw.rsdp;
  unsigned entries = raw.version >= 1 && raw.memoryMap ? raw.memoryMapEntries : 0;
  for (unsigned i = 0; i < entries && info.ramCount < 16; ++i) {
    auto entry = load<RawMemoryMapEntry>(
        mapThrough(raw.memoryMap + i * sizeof(RawMemoryMapEntry), sizeof(RawMemoryMapEntry)));
    if (entry.type == RAM) {
      info.ram[info.ramCount++] = {entry.address, entry.address + entry.size};
    }
  }
  return true;
}

}  // namespace payload
