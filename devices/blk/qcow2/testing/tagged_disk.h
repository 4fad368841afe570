#pragma once

#include <kj/common.h>

#include <cstdint>
#include <random>
#include <vector>

#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2::testing {

// A guest that writes a number of its own into each sector it writes, and knows which numbers may
// be found there: the one that was last flushed, and all since. A request from which an exception
// comes was cut: it may or may not have happened.
class TaggedDisk {
 public:
  TaggedDisk(uint64_t bytes, uint64_t seed);
  // Begins with what the disk holds.
  void adopt(kj::ArrayPtr<const kj::byte> contents);

  // One random request: mostly writes of 1 to 64 sectors, some longer, zeroes, discards, flushes.
  // Returns its result: 0 or -errno. What has failed may or may not have happened.
  int step(Image& image, ImageFile& file);
  int flush(Image& image);

  // The number of sectors of `contents` in which something else is than may be.
  uint64_t wrong(kj::ArrayPtr<const kj::byte> contents) const;
  // The same for a guest that has gone on all the time: what it wrote last is to be there.
  uint64_t wrongForOneThatWentOn(kj::ArrayPtr<const kj::byte> contents) const;
  // Such a guest is told what has become of the requests that were cut.
  void learn(kj::ArrayPtr<const kj::byte> contents);

 private:
  static constexpr uint64_t SECTOR = 512;
  struct Place {
    uint64_t first;
    uint64_t count;
  };
  Place choose();
  int write(Image& image, ImageFile& file, Place place);
  int clear(Image& image, ImageFile& file, Place place, bool discarding);
  void note(Place place, int error);
  template <typename Request>
  int attempt(Place place, Request&& request);
  uint64_t count(kj::ArrayPtr<const kj::byte> contents, bool onlyLast) const;

  std::mt19937_64 random;
  // By sector; the last one is current, unless the request that was to make it so has failed.
  std::vector<std::vector<uint64_t>> possible;
  std::vector<bool> uncertain;
  uint64_t nextTag = 1;
};

}  // namespace troupe::blk::qcow2::testing
