#include "devices/blk/format_io.h"

#include <errno.h>
#include <kj/debug.h>

#include "devices/blk/qcow2/pieces.h"

namespace troupe::blk {
namespace {

// A place that was just found can be lost again to other threads' lookups; not often in a row.
constexpr int MOST_ATTEMPTS = 16;

}  // namespace

FormatIo::FormatIo(const Disk& disk, ImageDisk* image, VolatileDisk* overlay, uint32_t capacity,
                   int eventFd)
    : io(disk, capacity, eventFd), image(image), overlay(overlay), capacity(capacity) {
  if (image != nullptr) {
    lane = image->takeLane();
    KJ_REQUIRE(lane < qcow2::InFlight::MOST_LANES, "more queues than lanes", lane);
    phases = kj::heapArray<uint8_t>(capacity);
    for (uint8_t& phase : phases)
      phase = NONE;
  }
  if (image != nullptr || overlay != nullptr) {
    parts = kj::heapArray<iovec>(size_t(capacity) * capacity);  // pages are used as they are needed
  }
}

void FormatIo::begin() {
  if (working) return;
  working = true;
  if (image != nullptr) image->queueBegins();
}

void FormatIo::rest() {
  if (!working) return;
  working = false;
  if (image != nullptr) image->queueRests();
}

kj::ArrayPtr<const iovec> FormatIo::clipped(kj::ArrayPtr<const iovec> pieces, uint64_t bytes,
                                            uint64_t token) {
  KJ_REQUIRE(pieces.size() <= capacity);
  iovec* room = parts.begin() + size_t(token) * capacity;
  return kj::arrayPtr(room, qcow2::clip(pieces, 0, bytes, room));
}

void FormatIo::ended(uint64_t token) {
  if (phases[token] == NONE) return;  // a flush
  image->image().inFlight().end(lane, phases[token]);
  phases[token] = NONE;
}

kj::Maybe<int64_t> FormatIo::readVolatile(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                          uint64_t token) {
  uint64_t bytes = qcow2::sizeOf(pieces);
  auto run = overlay->locate(offset, bytes);
  auto part = run.bytes == bytes ? pieces : clipped(pieces, run.bytes, token);
  if (run.isWritten) return overlay->read(part, offset);
  return readBelow(part, offset, token);
}

kj::Maybe<int64_t> FormatIo::readImage(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                       uint64_t token) {
  qcow2::Image& from = image->image();
  uint64_t bytes = qcow2::sizeOf(pieces);
  phases[token] = from.inFlight().begin(lane);
  auto extent = from.locate(offset, bytes);
  if (extent.kind == qcow2::Extent::Kind::SLOW) {
    int error = from.prepare(offset);
    if (error != 0) {
      ended(token);
      return int64_t(error);
    }
    extent = from.locate(offset, bytes);
  }
  kj::Maybe<int64_t> result;
  switch (extent.kind) {
    case qcow2::Extent::Kind::DATA: {
      auto part = extent.bytes == bytes ? pieces : clipped(pieces, extent.bytes, token);
      if (extent.file == 0) {
        result = io.read(part, extent.offset, token);
      } else {
        // The ring holds the disk alone, so a backing file is waited for.
        result = image->file(extent.file).read(part, extent.offset);
      }
      break;
    }
    case qcow2::Extent::Kind::ZEROES:
      qcow2::storeZeroes(pieces, 0, extent.bytes);
      result = int64_t(extent.bytes);
      break;
    case qcow2::Extent::Kind::SLOW:
      result = from.read(pieces, offset);
      break;
  }
  if (result != nullptr) ended(token);
  return result;
}

kj::Maybe<int64_t> FormatIo::writeImage(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                        Durability durability, uint64_t token) {
  qcow2::Image& to = image->image();
  uint64_t bytes = qcow2::sizeOf(pieces);
  // A place that another request was given may not be on the disk yet.
  if (durability == Durability::DURABLE && to.needsCommit()) {
    int error = to.flush();
    if (error != 0) return int64_t(error);
  }
  for (int i = 0; i < MOST_ATTEMPTS; i++) {
    phases[token] = to.inFlight().begin(lane);
    auto extent = to.locateForWrite(offset, bytes);
    if (extent.kind == qcow2::Extent::Kind::DATA) {
      auto part = extent.bytes == bytes ? pieces : clipped(pieces, extent.bytes, token);
      auto result = io.write(part, extent.offset, durability, token);
      if (result != nullptr) ended(token);
      return result;
    }
    ended(token);
    int64_t written = to.write(pieces, offset);
    if (written > 0 && durability == Durability::DURABLE) {
      int error = to.flush();
      if (error != 0) return int64_t(error);
    }
    if (written != 0) return written;
  }
  return int64_t(-EIO);
}

int64_t FormatIo::changeImage(Change change, uint64_t offset, uint64_t bytes,
                              Durability durability) {
  using Space = qcow2::Image::Space;
  qcow2::Image& to = image->image();
  int error = 0;
  switch (change) {
    case Change::DISCARD:
      error = to.discard(offset, bytes);
      break;
    case Change::ZERO:
      error = to.writeZeroes(offset, bytes, Space::GIVE_BACK);
      break;
    case Change::ZERO_KEEPING_PLACE:
      error = to.writeZeroes(offset, bytes, Space::KEEP);
      break;
  }
  if (error == 0 && change != Change::DISCARD && durability == Durability::DURABLE) {
    error = to.flush();
  }
  return error == 0 ? int64_t(bytes) : error;
}

}  // namespace troupe::blk
