#include "devices/blk/fuzz_model.h"

#include <algorithm>
#include <cstring>

#include "tests/fuzz/finding.h"
#include "tests/fuzz/watch.h"

namespace troupe::blk::fuzzing {
namespace {

using fuzz::finding;

constexpr uint64_t SECTORS = DISK_BYTES / virtio::BLK_SECTOR_BYTES;

// Takes `size` bytes off the front of `pieces` into `copy`; false when there are fewer.
bool take(std::vector<iovec>& pieces, void* copy, size_t size) {
  auto to = static_cast<kj::byte*>(copy);
  size_t used = 0;
  for (iovec& piece : pieces) {
    size_t part = std::min(piece.iov_len, size);
    memcpy(to, piece.iov_base, part);
    to += part;
    size -= part;
    piece.iov_base = static_cast<kj::byte*>(piece.iov_base) + part;
    piece.iov_len -= part;
    used += piece.iov_len == 0;
    if (size == 0) break;
  }
  pieces.erase(pieces.begin(), pieces.begin() + used);
  return size == 0;
}

uint64_t sizeOf(const std::vector<iovec>& pieces) {
  uint64_t size = 0;
  for (const iovec& piece : pieces)
    size += piece.iov_len;
  return size;
}

bool meet(const iovec& a, const iovec& b) {
  auto begin = [](const iovec& piece) { return static_cast<const kj::byte*>(piece.iov_base); };
  return begin(a) < begin(b) + b.iov_len && begin(b) < begin(a) + a.iov_len;
}

bool anyMeet(kj::ArrayPtr<const iovec> readable, kj::ArrayPtr<const iovec> writable) {
  for (size_t i = 0; i < writable.size(); i++) {
    for (size_t j = 0; j < i; j++)
      if (meet(writable[i], writable[j])) return true;
    for (const iovec& piece : readable)
      if (meet(writable[i], piece)) return true;
  }
  return false;
}

}  // namespace

DiskModel::DiskModel() {
  for (uint64_t i = 0; i < DISK_BYTES; i++)
    first[i] = bytes[i] = firstContent(i);
  std::fill(isKnown, isKnown + SECTORS, true);
}

void DiskModel::reset() {
  dropAll();
  if (dirtyBegin < dirtyEnd) memcpy(bytes + dirtyBegin, first + dirtyBegin, dirtyEnd - dirtyBegin);
  std::fill(isKnown, isKnown + SECTORS, true);
  dirtyBegin = DISK_BYTES;
  dirtyEnd = 0;
}

void DiskModel::forget(const Range& range) {
  if (!range.isChange || range.bytes == 0) return;
  uint64_t begin = range.offset / virtio::BLK_SECTOR_BYTES;
  uint64_t last = (range.offset + range.bytes - 1) / virtio::BLK_SECTOR_BYTES;
  std::fill(isKnown + begin, isKnown + last + 1, false);
}

void DiskModel::dropAll() {
  for (Asked& asked : underWay) {
    forget(changeOf(asked));
    spare.push_back(std::move(asked));
  }
  underWay.clear();
}

void DiskModel::taken(uint16_t queue, uint16_t head, kj::ArrayPtr<const iovec> readable,
                      kj::ArrayPtr<const iovec> writable) {
  Asked asked{};
  if (!spare.empty()) {
    asked = std::move(spare.back());
    spare.pop_back();
  }
  asked.queue = queue;
  asked.head = head;
  asked.guestWrites = fuzz::guestWrites();
  asked.moods = kernel().moodsTaken();
  asked.isAlone = underWay.empty();
  for (Asked& other : underWay)
    other.isAlone = false;
  asked.readable.assign(readable.begin(), readable.end());
  asked.writable.assign(writable.begin(), writable.end());
  virtio::BlkRequestHeader header = {};
  asked.isWhole = take(asked.readable, &header, sizeof(header)) && writable.size() > 0 &&
                  !anyMeet(readable, writable);
  asked.type = header.type;
  asked.sector = header.sector;
  if (writable.size() > 0) {
    iovec& last = asked.writable.back();
    last.iov_len--;
    asked.status = static_cast<const kj::byte*>(last.iov_base) + last.iov_len;
  }
  asked.readableBytes = sizeOf(asked.readable);
  asked.writableBytes = sizeOf(asked.writable);
  underWay.push_back(std::move(asked));
}

DiskModel::Range DiskModel::changeOf(const Asked& asked) const {
  Range range;
  uint64_t sector = asked.sector;
  uint64_t size = 0;
  if (asked.type == virtio::BLK_T_OUT) {
    size = asked.readableBytes;
  } else if (asked.type == virtio::BLK_T_DISCARD || asked.type == virtio::BLK_T_WRITE_ZEROES) {
    virtio::BlkRange what = {};
    auto copy = asked.readable;
    if (!take(copy, &what, sizeof(what))) return range;
    sector = what.sector;
    size = uint64_t(what.sectors) * virtio::BLK_SECTOR_BYTES;
    range.isZero = asked.type == virtio::BLK_T_WRITE_ZEROES;
  } else {
    return range;
  }
  if (sector > SECTORS || size > DISK_BYTES - sector * virtio::BLK_SECTOR_BYTES) return range;
  range.isChange = true;
  range.offset = sector * virtio::BLK_SECTOR_BYTES;
  range.bytes = size;
  return range;
}

void DiskModel::returned(uint16_t queue, uint16_t head, uint32_t written) {
  for (size_t i = 0; i < underWay.size(); i++) {
    Asked& asked = underWay[i];
    if (asked.queue != queue || asked.head != head) continue;
    Range range = changeOf(asked);
    bool isCertain = asked.isAlone && asked.isWhole && asked.guestWrites == fuzz::guestWrites();
    if (isCertain) {
      uint8_t status = *asked.status;
      check(asked, status, written);
      apply(asked, range, status == virtio::BLK_S_OK);
    } else if (asked.isWhole && asked.guestWrites == fuzz::guestWrites()) {
      forget(range);
    } else {
      // Nobody can tell what it asked for when the device looked.
      forget(Range{0, DISK_BYTES, true, false});
    }
    spare.push_back(std::move(asked));
    underWay.erase(underWay.begin() + i);
    return;
  }
}

void DiskModel::check(const Asked& asked, uint8_t status, uint32_t written) {
  if (status > virtio::BLK_S_UNSUPP) finding(kj::str("a request's status is ", status));
  uint64_t size = asked.type == virtio::BLK_T_IN ? asked.writableBytes : asked.readableBytes;
  bool isTransfer = asked.type == virtio::BLK_T_IN || asked.type == virtio::BLK_T_OUT;
  auto require = [&](uint8_t wanted, const char* what) {
    if (status == wanted) return;
    finding(kj::str(what, " is answered with ", status, " and not ", wanted, ": type ", asked.type,
                    ", sector ", asked.sector, ", bytes ", size));
  };
  bool isKnownType = isTransfer || asked.type == virtio::BLK_T_FLUSH ||
                     asked.type == virtio::BLK_T_GET_ID || asked.type == virtio::BLK_T_DISCARD ||
                     asked.type == virtio::BLK_T_WRITE_ZEROES;
  if (!isKnownType) return require(virtio::BLK_S_UNSUPP, "an unknown request");
  if (isTransfer) {
    bool isOdd = asked.type == virtio::BLK_T_IN ? asked.readableBytes : asked.writableBytes;
    bool fits = asked.sector <= SECTORS && size % virtio::BLK_SECTOR_BYTES == 0 &&
                size <= DISK_BYTES - asked.sector * virtio::BLK_SECTOR_BYTES;
    if (isOdd || !fits || (asked.type == virtio::BLK_T_OUT && isReadOnly)) {
      return require(virtio::BLK_S_IOERR, "a transfer that cannot be");
    }
    if (asked.moods == kernel().moodsTaken()) require(virtio::BLK_S_OK, "a good transfer");
  }
  if (status != virtio::BLK_S_OK || asked.type != virtio::BLK_T_IN) return;
  if (written != asked.writableBytes + 1) {
    finding(kj::str("a read of ", asked.writableBytes, " bytes says it stored ", written));
  }
  checkRead(asked);
}

// Sector by sector: of some nobody knows what they hold.
void DiskModel::checkRead(const Asked& asked) const {
  uint64_t at = asked.sector * virtio::BLK_SECTOR_BYTES;
  for (const iovec& piece : asked.writable) {
    auto got = static_cast<const kj::byte*>(piece.iov_base);
    for (size_t done = 0; done < piece.iov_len;) {
      uint64_t sector = at / virtio::BLK_SECTOR_BYTES;
      size_t part =
          std::min<uint64_t>(piece.iov_len - done, (sector + 1) * virtio::BLK_SECTOR_BYTES - at);
      if (isKnown[sector] && memcmp(got + done, bytes + at, part) != 0) {
        finding(kj::str("a read gives other bytes than the disk holds, in sector ", sector));
      }
      at += part;
      done += part;
    }
  }
}

void DiskModel::apply(const Asked& asked, const Range& range, bool isDone) {
  if (!range.isChange || isReadOnly) return;
  if (!isDone || (asked.type != virtio::BLK_T_OUT && !range.isZero)) return forget(range);
  if (range.bytes == 0) return;
  dirtyBegin = std::min(dirtyBegin, range.offset);
  dirtyEnd = std::max(dirtyEnd, range.offset + range.bytes);
  kj::byte* to = bytes + range.offset;
  if (range.isZero) {
    memset(to, 0, range.bytes);
  } else {
    for (const iovec& piece : asked.readable) {
      memcpy(to, piece.iov_base, piece.iov_len);
      to += piece.iov_len;
    }
  }
  for (uint64_t i = 0; i < range.bytes / virtio::BLK_SECTOR_BYTES; i++)
    isKnown[range.offset / virtio::BLK_SECTOR_BYTES + i] = true;
}

}  // namespace troupe::blk::fuzzing
