#include "guest/payload/memory.h"

extern "C" {

void* memcpy(void* to, const void* from, size_t size) {
  void* result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}

void* memset(void* to, int byte, size_t size) {
  void* result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
  return result;
}

int memcmp(const void* left, const void* right, size_t size) {
  auto a = static_cast<const unsigned char*>(left);
  auto b = static_cast<const unsigned char*>(right);
  for (; size; --size, ++a, ++b) {
    if (*a != *b) {
      return *a - *b;
    }
  }
  return 0;
}

extern uint64_t pml4[512];
extern char imageEnd[];
}

namespace payload {
namespace {

constexpr uint64_t GIB = 1 << 30;
constexpr uint64_t LARGE_PAGE = 2 << 20;
constexpr uint64_t PAGE = 4096;

// Present, writable, user, accessed; set here so that the processor need not.
constexpr uint64_t TABLE = 0x27;
constexpr uint64_t DIRTY_LARGE_PAGE = 0xe7;

// Each GiB touched takes one table, each 512 GiB another: ECAM, two windows of BARs, ACPI, the
// APICs.
constexpr unsigned SPARE_TABLES = 16;
alignas(4096) uint64_t spareTables[SPARE_TABLES][512];
unsigned spareTablesUsed;

uint64_t heapBegin;
uint64_t heapEnd;
uint64_t heapUsed;

uint64_t* newTable() {
  // Nothing can be printed about a machine that needs more: its registers may be out of reach too.
  if (spareTablesUsed == SPARE_TABLES) {
    __builtin_trap();
  }
  return spareTables[spareTablesUsed++];
}

uint64_t* tableAt(uint64_t entry) {
  return reinterpret_cast<uint64_t*>(entry & ~(PAGE - 1));
}

void mapGib(uint64_t address) {
  uint64_t& upper = pml4[address >> 39 & 511];
  if (!upper) {
    upper = reinterpret_cast<uint64_t>(newTable()) | TABLE;
  }
  uint64_t& entry = tableAt(upper)[address >> 30 & 511];
  if (entry) {
    return;
  }
  // Filled before it is linked, so a hypervisor that shadows page tables sees one write.
  uint64_t* table = newTable();
  uint64_t start = address & ~(GIB - 1);
  for (unsigned i = 0; i < 512; ++i) {
    table[i] = (start + i * LARGE_PAGE) | DIRTY_LARGE_PAGE;
  }
  asm volatile("" : : : "memory");
  entry = reinterpret_cast<uint64_t>(table) | TABLE;
}

}  // namespace

void* mapThrough(uint64_t address, uint64_t size) {
  for (uint64_t gib = address & ~(GIB - 1); gib < address + size; gib += GIB) {
    mapGib(gib);
  }
  return reinterpret_cast<void*>(address);
}

bool initHeap(const StartInfo& info, HeapPlace place) {
  if (place == HeapPlace::LAST) {
    for (unsigned i = 0; i < info.ramCount; ++i) {
      if (info.ram[i].start >= heapBegin) {
        heapBegin = info.ram[i].start;
        heapEnd = info.ram[i].end;
      }
    }
    if (heapEnd - heapBegin > GIB) {
      heapEnd = heapBegin + GIB;
    }
    mapThrough(heapBegin, heapEnd - heapBegin);
    return heapBegin >= reinterpret_cast<uint64_t>(imageEnd);
  }
  auto image = reinterpret_cast<uint64_t>(imageEnd);
  for (unsigned i = 0; i < info.ramCount; ++i) {
    if (info.ram[i].start <= image && image < info.ram[i].end) {
      heapBegin = (image + PAGE - 1) & ~(PAGE - 1);
      // The first GiB is mapped, and more than any check needs.
      heapEnd = info.ram[i].end < GIB ? info.ram[i].end : GIB;
    }
  }
  return heapEnd != 0;
}

uint64_t heapStart() {
  return heapBegin;
}

void* allocate(uint64_t bytes) {
  bytes = (bytes + PAGE - 1) & ~(PAGE - 1);
  if (bytes > heapEnd - heapBegin - heapUsed) {
    return nullptr;
  }
  auto result = reinterpret_cast<void*>(heapBegin + heapUsed);
  heapUsed += bytes;
  return memset(result, 0, bytes);
}

}  // namespace payload
