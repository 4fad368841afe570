#include "devices/blk/blk_request.h"

namespace troupe::blk {
namespace {

using virtio::BLK_SECTOR_BYTES;

Request refuse(uint8_t status) {
  return Request{Request::Kind::REFUSED, status, 0, 0};
}

// A transfer of `bytes` from `sector` on, if the disk has that place. No step can overflow: the
// sector is compared with the disk's before it is multiplied.
Request transfer(Request::Kind kind, uint64_t sector, uint64_t bytes, const DiskShape& shape) {
  if (bytes > MAX_REQUEST_BYTES || bytes % shape.blockBytes != 0)
    return refuse(virtio::BLK_S_IOERR);
  if (sector > shape.bytes / BLK_SECTOR_BYTES) return refuse(virtio::BLK_S_IOERR);
  uint64_t offset = sector * BLK_SECTOR_BYTES;
  if (offset % shape.blockBytes != 0 || bytes > shape.bytes - offset) {
    return refuse(virtio::BLK_S_IOERR);
  }
  return Request{kind, virtio::BLK_S_OK, uint32_t(bytes), offset};
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
      return transfer(Request::Kind::READ, header.sector, writable, shape);
    case virtio::BLK_T_OUT:
      // Whether the driver acknowledged RO or not, §5.2.6.2.
      if (writable > 0 || shape.readOnly) return refuse(virtio::BLK_S_IOERR);
      return transfer(Request::Kind::WRITE, header.sector, readable, shape);
    case virtio::BLK_T_FLUSH:
      if (readable > 0 || writable > 0) return refuse(virtio::BLK_S_IOERR);
      return Request{Request::Kind::FLUSH, virtio::BLK_S_OK, 0, 0};
    case virtio::BLK_T_GET_ID:
      if (readable > 0) return refuse(virtio::BLK_S_IOERR);
      return Request{Request::Kind::GET_ID, virtio::BLK_S_OK, 0, 0};
    default:
      return refuse(virtio::BLK_S_UNSUPP);
  }
}

}  // namespace troupe::blk
