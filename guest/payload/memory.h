#pragma once

#include <stddef.h>
#include <stdint.h>

#include "guest/payload/start_info.h"

extern "C" {
void* memcpy(void* to, const void* from, size_t size);
void* memset(void* to, int byte, size_t size);
int memcmp(const void* left, const void* right, size_t size);
}

// Guest-physical memory as ring 3 sees it (virtual addresses are physical ones), and a heap that
// only grows.
namespace payload {

// Makes [address, address + size) reachable and returns it as a pointer.
void* mapThrough(uint64_t address, uint64_t size);

// Gives the heap the RAM behind the image, below 4 GiB; or with LAST that at the highest addresses,
// where the image is not. False when there is none.
enum class HeapPlace { BEHIND_IMAGE, LAST };
bool initHeap(const StartInfo& info, HeapPlace place);

uint64_t heapStart();

// Zeroed, page-aligned, never given back; null when the heap is used up.
void* allocate(uint64_t bytes);

}  // namespace payload
