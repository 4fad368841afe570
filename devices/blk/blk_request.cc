#include "devices/blk/blk_request.h"

#include "tests/fuzz/planted.h"

namespace troupe::blk {
namespace {

using fuzz::Bug;
using fuzz::isPlanted;
using virtio::BLK_SECTOR_BYTES;

Request refuse(uint8_t status) {
  return Request{Request::Kind::REFUSED, status, 0, 0};
}

// A request for `bytes` from `sector` on, if the disk has that place. No step can overflow: the
// sector is compared with the disk's before it is multiplied.
Request place(Request::Kind kind, uint64_t sector, uint64_t bytes, uint64_t maxBytes,
              const DiskShape& shape) {
  if (bytes > maxBytes || bytes % shape.blockBytes != 0) return refuse(virtio::BLK_S_IOERR);
  if (sector > shape.bytes / BLK_SECTOR_BYTES && !isPlanted(Bug::SECTOR_OVERFLOW)) {
    return refuse(virtio::BLK_S_IOERR);
  }
  uint64_t offset = sector * BLK_SECTOR_BYTES;
  if (offset % shape.blockBytes != 0 || bytes > shape.bytes - offset) {
    return refuse(virtio::BLK_S_IOERR);
  }
  return Request{kind, virtio::BLK_S_OK, uint32_t(bytes), offset};
}

// DISCARD or WRITE_ZEROES, whose data is one range.
Request change(virtio::Chain& chain, uint32_t type, const DiskShape& shape) {
  virtio::BlkRange range;  // a copy, as the header is
  if (shape.readOnly || chain.writableBytes() > 0 || chain.readableBytes() != sizeof(range) ||
      !chain.read(range)) {
    return refuse(virtio::BLK_S_IOERR);
  }
  uint64_t bytes = uint64_t(range.sectors) * BLK_SECTOR_BYTES;
  if (type == virtio::BLK_T_DISCARD) {
    if (range.flags != 0) return refuse(virtio::BLK_S_UNSUPP);
    return place(Request::Kind::DISCARD, range.sector, bytes, MAX_DISCARD_BYTES, shape);
  }
  if (range.flags & ~virtio::BLK_RANGE_UNMAP) return refuse(virtio::BLK_S_UNSUPP);
  auto kind = range.flags & virtio::BLK_RANGE_UNMAP ? Request::Kind::ZEROES
                                                    : Request::Kind::ZEROES_KEEPING_PLACE;
  return place(kind, range.sector, bytes, MAX_ZEROES_BYTES, shape);
}

}  // namespace

kj::Maybe<Request> parse(virtio::Chain& chain, const DiskShape& shape) {
  if (!chain.reserveTail(sizeof(uint8_t))) return nullptr;
  virtio::BlkRequestHeader header;  // a copy: the guest cannot change it after the checks
  if (!chain.read(header)) return refuse(virtio::BLK_S_IOERR);

  uint64_t readable = chain.readableBytes();
  uint64_t writable = chain.writableBytes();
  switch (header.type) {
    case virtio::BLK_T_IN:
      if (readable > 0) return refuse(virtio::BLK_S_IOERR);
      return place(Request::Kind::READ, header.sector, writable, MAX_REQUEST_BYTES, shape);
    case virtio::BLK_T_OUT:
      // Whether the driver acknowledged RO or not, §5.2.6.2.
      if (writable > 0 || (shape.readOnly && !isPlanted(Bug::READ_ONLY))) {
        return refuse(virtio::BLK_S_IOERR);
      }
      return place(Request::Kind::WRITE, header.sector, readable, MAX_REQUEST_BYTES, shape);
    case virtio::BLK_T_FLUSH:
      if (readable > 0 || writable > 0) return refuse(virtio::BLK_S_IOERR);
      return Request{Request::Kind::FLUSH, virtio::BLK_S_OK, 0, 0};
    case virtio::BLK_T_GET_ID:
      if (readable > 0) return refuse(virtio::BLK_S_IOERR);
      return Request{Request::Kind::GET_ID, virtio::BLK_S_OK, 0, 0};
    case virtio::BLK_T_DISCARD:
    case virtio::BLK_T_WRITE_ZEROES:
      return change(chain, header.type, shape);
    default:
      return refuse(virtio::BLK_S_UNSUPP);
  }
}

}  // namespace troupe::blk
