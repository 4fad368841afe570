#pragma once

#include <kj/common.h>

#include <cstdint>
#include <type_traits>

#include "devices/virtio/guest_watch.h"

// The one way to read or write a word of memory the guest shares. Each function compiles to exactly
// one access of the word's own width (guest_word_codegen_test looks at the machine code), so what a
// check saw is what is used, whatever the guest writes meanwhile.
//
// Words are little-endian (§1.4) and so is every machine we build for.
namespace troupe::virtio {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "guest words are used as they are");

// One word of a copy, of which the watch is told as a whole.
template <typename T>
inline T loadPart(const kj::byte* pointer) {
  static_assert(std::is_unsigned<T>::value && sizeof(T) <= 8, "one machine word");
  return __atomic_load_n(reinterpret_cast<const T*>(pointer), __ATOMIC_RELAXED);
}

template <typename T>
inline void storePart(kj::byte* pointer, T value) {
  static_assert(std::is_unsigned<T>::value && sizeof(T) <= 8, "one machine word");
  __atomic_store_n(reinterpret_cast<T*>(pointer), value, __ATOMIC_RELAXED);
}

// Plain data: no order with other words, except by the address it was computed from.
template <typename T>
inline T loadWord(const kj::byte* pointer) {
  watch::read(pointer, sizeof(T));
  return loadPart<T>(pointer);
}

template <typename T>
inline void storeWord(kj::byte* pointer, T value) {
  watch::write(pointer, sizeof(T));
  storePart<T>(pointer, value);
}

// For words that say how far the other side has come or what it wants to hear of. A load is not
// passed by later accesses. A store shows everything before it to whoever reads the stored value,
// and no later loadIndex() overtakes it: on x86 an exchange, the one fence §2.7.7.2 and §2.7.10
// need.
inline uint16_t loadIndex(const kj::byte* pointer) {
  watch::read(pointer, sizeof(uint16_t));
  return __atomic_load_n(reinterpret_cast<const uint16_t*>(pointer), __ATOMIC_SEQ_CST);
}

inline void storeIndex(kj::byte* pointer, uint16_t value) {
  watch::write(pointer, sizeof(uint16_t));
  __atomic_store_n(reinterpret_cast<uint16_t*>(pointer), value, __ATOMIC_SEQ_CST);
}

// The store alone: a later loadIndex() may overtake it.
inline void releaseIndex(kj::byte* pointer, uint16_t value) {
  watch::write(pointer, sizeof(uint16_t));
  __atomic_store_n(reinterpret_cast<uint16_t*>(pointer), value, __ATOMIC_RELEASE);
}

}  // namespace troupe::virtio
