// Fuzzes the qcow2 library: a guest's requests on an image in whose file somebody changes words,
// cuts it short, or lets reads fail, between openings. An image nobody touched must hold what was
// written.
#include <errno.h>
#include <kj/debug.h>

#include <cstring>

#include "devices/blk/qcow2/check.h"
#include "devices/blk/qcow2/format.h"
#include "devices/blk/qcow2/testing/blank_image.h"
#include "devices/blk/qcow2/testing/memory_file.h"
#include "devices/blk/qcow2/testing/whole_disk.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::blk::qcow2 {
namespace {

using fuzz::finding;
using fuzz::Op;

constexpr uint64_t DISK_BYTES = 128 << 10;
constexpr uint64_t HOST_BYTES = 2 << 20;  // what the host has room for
constexpr uint64_t NEVER = 1ull << 30;    // no image of such a disk has anything there
constexpr size_t MOST_REQUESTS = 32;
constexpr size_t FIXED_HEADER = 24;  // no request changes it

// A host that runs full, and where nothing is written far behind all there is.
class SmallHost final: public ImageFile {
 public:
  explicit SmallHost(kj::ArrayPtr<const kj::byte> bytes) : memory(bytes, HOST_BYTES) {}

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return memory.read(pieces, offset);
  }
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    uint64_t size = 0;
    for (const iovec& piece : pieces)
      size += piece.iov_len;
    if (!hasRoom(offset, size)) return -ENOSPC;
    return memory.write(pieces, offset);
  }
  int sync() override { return memory.sync(); }
  int truncate(uint64_t bytes) override {
    return hasRoom(bytes, 0) ? memory.truncate(bytes) : -ENOSPC;
  }
  int punch(uint64_t offset, uint64_t bytes) override { return memory.punch(offset, bytes); }
  uint64_t size() override { return memory.size(); }
  uint32_t blockBytes() const override { return 1; }

  testing::MemoryFile memory;

 private:
  bool hasRoom(uint64_t offset, uint64_t bytes) {
    if (offset >= NEVER) finding(kj::str("a write ", offset, " bytes into the file of an image"));
    return offset + bytes <= HOST_BYTES;
  }
};

class Session {
 public:
  explicit Session(const Op& op) {
    testing::BlankImage blank;
    constexpr uint32_t CLUSTER_BITS[] = {9, 12, 14};
    clusterBits = CLUSTER_BITS[op.a % 3];
    blank.clusterBits = clusterBits;
    blank.size = DISK_BYTES;
    blank.version = op.a & 0x10 ? 2 : 3;
    blank.lazyRefcounts = blank.version == 3 && (op.a & 0x20);
    host = kj::heap<SmallHost>(testing::makeBlank(blank));
    isReadOnly = op.a >= 0xe0;
    memset(expected, 0, sizeof(expected));
  }

  void perform(const Op& op) {
    switch (op.kind % 12) {
      case 7:
        return poke(op);
      case 8:
        isTrusted = false;
        return host->memory.failReads(op.a & 1 ? EIO : 0);
      case 9:
        return host->memory.shortTransfers(op.a & 1);
      case 10:
        return replace(host->memory.afterPowerLoss(op.d));
      case 11:
        return replace(kj::heapArray<kj::byte>(
            host->memory.contents().slice(0, kj::max(op.d % host->size(), uint64_t(32)))));
      default:
        break;
    }
    if (!open()) return;
    kj::byte before[FIXED_HEADER];
    memcpy(before, host->memory.contents().begin(), sizeof(before));
    ask(op);
    if (memcmp(before, host->memory.contents().begin(), sizeof(before)) != 0) {
      finding("a request changed the header");
    }
  }

  void finish() {
    host->memory.failReads(0);
    host->memory.shortTransfers(false);
    if (image.get() != nullptr) image->close();
    image = nullptr;
    lookOver();
    if (!open()) return;
    image->close();
    image = nullptr;
    if (!isTrusted || !open()) return;
    auto contents = testing::WholeDisk(*image, *host).contents();
    if (contents.size() != sizeof(expected) ||
        memcmp(contents.begin(), expected, sizeof(expected)) != 0) {
      finding("a sound image does not hold what was written");
    }
  }

 private:
  // False for one that is refused, as is right for most that were damaged.
  bool open() {
    if (image.get() != nullptr) return true;
    if (isRefused) return false;
    KJ_IF_MAYBE (refusal, kj::runCatchingExceptions([&]() {
                   image = testing::openAlone(*host,
                                              isReadOnly ? Access::READ_ONLY : Access::READ_WRITE);
                 })) {
      if (isTrusted) finding(kj::str("a sound image is refused: ", refusal->getDescription()));
      isRefused = true;
    }
    return !isRefused;
  }

  // Checks the file, and once more after a repair.
  void lookOver() {
    uint64_t changes = host->memory.changes();
    auto before = tryCheck(Repair::NOTHING);
    if (host->memory.changes() != changes) finding("a check wrote to the image");
    KJ_IF_MAYBE (found, before) {
      if (isTrusted && found->errors > 0) finding("a sound image is found to have errors");
      if (found->errors > 0) return;
      tryCheck(Repair::LEAKS);
      KJ_IF_MAYBE (left, tryCheck(Repair::NOTHING)) {
        if (left->errors + left->leaks > 0) finding("a repair left flaws, or made them");
      }
    }
  }
  kj::Maybe<CheckResult> tryCheck(Repair repair) {
    kj::Maybe<CheckResult> result;
    KJ_IF_MAYBE (refusal, kj::runCatchingExceptions([&]() {
                   constexpr uint64_t WINDOW = 100;  // several of them
                   AlignedBytes start(64 << 10);
                   if (readFully(*host, start.all(), 0) != 0) return;
                   auto header = parseHeader(start.all(), host->size(), Access::READ_ONLY);
                   result =
                       checkInWindows(*host, header, repair, WINDOW, [](uint64_t, uint64_t) {});
                 })) {
      if (isTrusted) finding(kj::str("a sound image cannot be checked: ", *refusal));
    }
    return result;
  }

  void ask(const Op& op) {
    uint64_t size = kj::min(image->size(), DISK_BYTES);
    if (size == 0) return;
    uint64_t offset = op.d % size;
    uint64_t bytes = kj::min(uint64_t(op.c % 70000) + 1, size - offset);
    if (op.a & 1) {  // as guests do
      offset &= ~uint64_t(511);
      bytes = kj::min((bytes + 511) & ~uint64_t(511), size - offset);
    }
    kj::byte* there = expected + offset;
    static kj::byte buffer[DISK_BYTES];
    testing::WholeDisk disk(*image, *host);
    int error = 0;
    switch (op.kind % 12) {
      case 0:
        image->flush();
        return;
      case 1:
      case 2:
        if (isReadOnly) return;
        memset(buffer, op.b, bytes);
        error = disk.write(offset, kj::arrayPtr(buffer, bytes));
        if (error == 0) memcpy(there, buffer, bytes);
        break;
      case 3:
        if (isReadOnly) return;
        error = image->writeZeroes(offset, bytes,
                                   op.a & 2 ? Image::Space::GIVE_BACK : Image::Space::KEEP);
        if (error == 0) memset(there, 0, bytes);
        break;
      case 4:
        if (isReadOnly) return;
        error = image->discard(offset, bytes);
        isTrusted = false;  // what it holds now is anybody's guess
        break;
      case 5:
        image->close();
        image = nullptr;
        return;
      default:
        error = disk.read(offset, kj::arrayPtr(buffer, bytes));
        if (isTrusted && error == 0 && memcmp(buffer, there, bytes) != 0) {
          finding("a sound image gives other bytes than were written");
        }
        break;
    }
    if (error == -ENOSPC) isTrusted = false;
    if (isTrusted && error != 0) finding(kj::str("a sound image fails: ", strerror(-error)));
  }

  // Somebody else writes into the file.
  void poke(const Op& op) {
    leave();
    uint64_t word = op.d;
    switch (op.a % 4) {
      case 1:  // a cluster
        word = op.d % 64 << clusterBits | COPIED;
        break;
      case 2:  // one that is not there
        word = 1ull << (30 + op.d % 26) | COPIED;
        break;
    }
    auto contents = host->memory.contents();
    uint64_t at = (uint64_t(op.c % 12) << clusterBits) + op.b % 64 * 8;
    if (op.a & 0x40) at = op.c % contents.size();
    if (contents.size() < 8 || at > contents.size() - 8) return;
    store64(contents.begin() + at, word);
  }

  // The process ends at once.
  void leave() {
    image = nullptr;
    isTrusted = false;
    isRefused = false;
  }
  void replace(kj::Array<kj::byte> bytes) {
    leave();
    host = kj::heap<SmallHost>(bytes);
  }

  uint32_t clusterBits;
  kj::Own<SmallHost> host;
  kj::Own<Image> image;
  bool isReadOnly;
  bool isTrusted = true;
  bool isRefused = false;
  kj::byte expected[DISK_BYTES];
};

void run(kj::ArrayPtr<const kj::byte> input) {
  auto ops = fuzz::decode(input);
  if (ops.empty()) return;
  auto session = kj::heap<Session>(ops[0]);
  for (size_t i = 1; i < kj::min(ops.size(), MOST_REQUESTS); ++i)
    session->perform(ops[i]);
  session->finish();
}

// A refusal is an exception, thousands of times a second here.
class Quiet final: public kj::ExceptionCallback {
  void logMessage(kj::LogSeverity, const char*, int, int, kj::String&&) override {}
  StackTraceMode stackTraceMode() override { return StackTraceMode::NONE; }
};

}  // namespace
}  // namespace troupe::blk::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::blk::qcow2::Quiet quiet;
  try {
    troupe::blk::qcow2::run(kj::arrayPtr(data, size));
  } catch (const kj::Exception& exception) {
    troupe::fuzz::finding(kj::str("an exception left an open image: ", exception));
  }
  return 0;
}
