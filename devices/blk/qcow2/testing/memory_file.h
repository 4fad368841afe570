#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2::testing {

// A file in memory that can fail, and that can lose what was not synced, as a machine does whose
// power goes. Single-threaded.
class MemoryFile final: public ImageFile {
 public:
  // Growth beyond `mostBytes` throws: nothing may make a file of a test large.
  explicit MemoryFile(kj::ArrayPtr<const kj::byte> bytes, uint64_t mostBytes = 64 << 20);
  KJ_DISALLOW_COPY(MemoryFile);

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;
  int sync() override;
  int truncate(uint64_t bytes) override;
  int punch(uint64_t offset, uint64_t bytes) override;
  uint64_t size() override { return bytes.size(); }
  uint32_t blockBytes() const override { return 1; }

  kj::ArrayPtr<kj::byte> contents() { return bytes; }

  // The n-th call from now on that changes the file, or syncs it, fails with `error`, and all after
  // it too while `forGood`. 0 is the next.
  void failAfter(uint64_t calls, int error, bool forGood);
  void failNothing() { failing = false; }
  // Reads fail with `error`; 0: not any more.
  void failReads(int error) { readError = error; }
  // A write moves half of its bytes, a read too.
  void shortTransfers(bool on) { isShort = on; }
  uint64_t changes() const { return changeCount; }
  uint64_t syncs() const { return syncCount; }

  // What may be found after the power went: all that was synced, and of the changes since, in
  // blocks of 512 bytes, each with probability 1/2.
  kj::Array<kj::byte> afterPowerLoss(uint64_t seed) const;

 private:
  bool fails(int& error);
  void note(uint64_t offset, uint64_t count);

  kj::Vector<kj::byte> bytes;
  kj::Vector<kj::byte> stable;
  kj::Vector<bool> changed;  // by block, since the last sync
  const uint64_t mostBytes;
  bool failing = false;
  bool failingForGood = false;
  uint64_t callsUntilFailure = 0;
  int failure = 0;
  int readError = 0;
  bool isShort = false;
  uint64_t changeCount = 0;
  uint64_t syncCount = 0;
};

}  // namespace troupe::blk::qcow2::testing
