#pragma once

#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <initializer_list>
#include <vector>

#include "broker/guest_ram.h"
#include "broker/memory_map.h"
#include "sandbox/shared_memory.h"
#include "tests/fuzz/finding.h"

// RAM that knows where it was written, for the fuzz target of the loader.
namespace troupe::broker {

// As its file sees it: what nobody wrote is a hole there.
class WrittenRam {
 public:
  struct Range {
    uint64_t begin, end;  // of guest addresses
  };

  explicit WrittenRam(kj::Array<RamRegion> regions)
      : file(sandbox::makeSharedMemory("guest-ram", bytesOf(regions))),
        ram(kj::mv(regions), file.writable) {
    // What is beside a mapping belongs to nobody.
    for (size_t i = 0; i < ram.regions().size(); i++) {
      fence(ram.hostPointer(i) - PAGE);
      fence(ram.hostPointer(i) + ram.regions()[i].size);
    }
  }

  template <typename T>
  T read(uint64_t address) const {
    T value;
    KJ_IF_MAYBE (place, ram.slice(address, sizeof(value))) {
      memcpy(&value, place->begin(), sizeof(value));
      return value;
    }
    fuzz::finding("what a guest is told lies outside of RAM");
  }

  // The written pages.
  std::vector<Range> written() const {
    std::vector<Range> found;
    off_t at = 0;
    while ((at = lseek(file.writable, at, SEEK_DATA)) >= 0) {
      off_t end = lseek(file.writable, at, SEEK_HOLE);
      KJ_ASSERT(end > at);
      split(at, end, found);
      at = end;
    }
    return found;
  }

  // A finding unless all that was written lies in the pages of `allowed`.
  void requireWritten(std::initializer_list<Range> allowed) const {
    for (auto& range : written()) {
      for (uint64_t page = range.begin; page < range.end; page += PAGE) {
        bool isAllowed = false;
        for (auto& one : allowed)
          isAllowed |= page >= (one.begin & ~(PAGE - 1)) && page < one.end;
        if (!isAllowed) fuzz::finding(kj::str("somebody wrote at 0x", kj::hex(page)));
      }
    }
  }

  // All zeroes again.
  void clear() {
    off_t at = 0;
    while ((at = lseek(file.writable, at, SEEK_DATA)) >= 0) {
      off_t end = lseek(file.writable, at, SEEK_HOLE);
      uint64_t done = at;
      while (done < uint64_t(end))
        done = ram.clear(done, end - done);
    }
  }

  static constexpr uint64_t PAGE = 4096;

 private:
  static uint64_t bytesOf(kj::ArrayPtr<const RamRegion> regions) {
    uint64_t bytes = 0;
    for (auto& region : regions)
      bytes += region.size;
    return bytes;
  }

  static void fence(void* page) {
    void* placed =
        mmap(page, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    (void)placed;  // somebody else's memory is there already: its owner's sanitizer looks after it
  }

  // By regions.
  void split(uint64_t from, uint64_t to, std::vector<Range>& found) const {
    for (auto& region : ram.regions()) {
      uint64_t begin = kj::max(from, region.fileOffset);
      uint64_t end = kj::min(to, region.fileOffset + region.size);
      if (begin >= end) continue;
      uint64_t shift = region.guestAddress - region.fileOffset;
      found.push_back({begin + shift, end + shift});
    }
  }

  sandbox::SharedMemory file;

 public:
  GuestRam ram;
};

// What a kernel's pages hold: nothing of what it is handed may change them.
class KernelPages {
 public:
  KernelPages(const WrittenRam& machine, uint64_t end) : machine(machine), end(end), sum(total()) {}

  void requireSame() const {
    if (total() != sum) fuzz::finding("the kernel was overwritten by what it is handed");
  }

 private:
  uint64_t total() const {
    uint64_t all = 0;
    for (auto& range : machine.written()) {
      uint64_t from = kj::max(range.begin, uint64_t(1 * MIB));
      uint64_t to = kj::min(range.end, end);
      if (from >= to) continue;
      auto bytes = KJ_ASSERT_NONNULL(machine.ram.slice(from, to - from));
      for (size_t i = 0; i + sizeof(uint64_t) <= bytes.size(); i += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, bytes.begin() + i, sizeof(word));
        all = (all ^ word) * 0x9e3779b97f4a7c15 + from + i;
      }
    }
    return all;
  }

  const WrittenRam& machine;
  uint64_t end;
  uint64_t sum;
};

}  // namespace troupe::broker
