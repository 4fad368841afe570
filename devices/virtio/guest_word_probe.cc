// Each accessor of guest_word.h as a function of its own, for guest_word_codegen_test.sh to look
// at.
#include "devices/virtio/guest_word.h"

using kj::byte;

extern "C" {
uint8_t probeLoad8(const byte* p) {
  return troupe::virtio::loadWord<uint8_t>(p);
}
uint16_t probeLoad16(const byte* p) {
  return troupe::virtio::loadWord<uint16_t>(p);
}
uint32_t probeLoad32(const byte* p) {
  return troupe::virtio::loadWord<uint32_t>(p);
}
uint64_t probeLoad64(const byte* p) {
  return troupe::virtio::loadWord<uint64_t>(p);
}
uint16_t probeLoadIndex(const byte* p) {
  return troupe::virtio::loadIndex(p);
}
void probeStore8(byte* p, uint8_t v) {
  troupe::virtio::storeWord<uint8_t>(p, v);
}
void probeStore16(byte* p, uint16_t v) {
  troupe::virtio::storeWord<uint16_t>(p, v);
}
void probeStore32(byte* p, uint32_t v) {
  troupe::virtio::storeWord<uint32_t>(p, v);
}
void probeStore64(byte* p, uint64_t v) {
  troupe::virtio::storeWord<uint64_t>(p, v);
}
void probeStoreIndex(byte* p, uint16_t v) {
  troupe::virtio::storeIndex(p, v);
}

// Two checks of one value: a compiler that read twice would show two loads here.
bool probeCheckTwice(const byte* p) {
  uint32_t value = troupe::virtio::loadWord<uint32_t>(p);
  return value >= 16 && value <= 4096 && value % 3 == 0;
}
}

// Keeps them from the linker's sweep.
int main() {
  void* volatile kept[] = {
      reinterpret_cast<void*>(probeLoad8),      reinterpret_cast<void*>(probeLoad16),
      reinterpret_cast<void*>(probeLoad32),     reinterpret_cast<void*>(probeLoad64),
      reinterpret_cast<void*>(probeLoadIndex),  reinterpret_cast<void*>(probeStore8),
      reinterpret_cast<void*>(probeStore16),    reinterpret_cast<void*>(probeStore32),
      reinterpret_cast<void*>(probeStore64),    reinterpret_cast<void*>(probeStoreIndex),
      reinterpret_cast<void*>(probeCheckTwice),
  };
  return kept[0] == nullptr;
}
