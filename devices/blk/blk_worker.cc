#include "devices/blk/blk_worker.h"

#include <kj/debug.h>
#include <sys/eventfd.h>

namespace troupe::blk {
namespace {

// The driver sees finished requests in groups of this size: soon enough to prepare the next ones
// while we go on, seldom enough that the two CPUs do not fight over the index.
constexpr uint32_t PUBLISH_AFTER = 8;

}  // namespace

BlkWorker::BlkWorker(const BlkSettings& settings, int wake)
    : settings(settings),
      io(settings.disk, QUEUE_SIZE, wake),
      background(kj::heapArray<kj::Maybe<Transfer>>(QUEUE_SIZE)) {}

void BlkWorker::begin(const BlkWork& newWork) {
  KJ_REQUIRE(newWork.ring->size() <= background.size());
  work = newWork;
  untold = 0;
}

void BlkWorker::turn() {
  drain();
  io.submit();
  reap();
  io.submit();  // what reap() had to go on with
  tellDriver();
}

// New requests, one ring full at most: whoever adds while we drain waits for the next turn.
void BlkWorker::drain() {
  for (uint32_t i = 0; i < work.ring->size(); i++) {
    KJ_IF_MAYBE (chain, work.ring->pop()) {
      take(kj::mv(*chain));
    } else {
      return;
    }
  }
}

void BlkWorker::reap() {
  if (inBackground == 0) return;
  io.takeCompletions([this](uint64_t head, int64_t result) {
    kj::Maybe<Transfer> slot = kj::mv(background[head]);
    background[head] = nullptr;
    --inBackground;
    auto& transfer = KJ_ASSERT_NONNULL(slot);
    kj::Maybe<uint8_t> status = account(transfer, result);
    if (status == nullptr) status = attempt(transfer);  // only a part was moved
    KJ_IF_MAYBE (s, status) {
      complete(kj::mv(transfer), *s);
    } else {
      park(kj::mv(transfer));
    }
  });
}

void BlkWorker::take(virtio::Chain&& chain) {
  KJ_IF_MAYBE (request, parse(chain, settings.disk.shape())) {
    Transfer transfer{kj::mv(chain), *request, 0};
    KJ_IF_MAYBE (status, begin(transfer)) {
      complete(kj::mv(transfer), *status);
    } else {
      park(kj::mv(transfer));
    }
  } else {
    finished(kj::mv(chain), 0);
  }
}

// The status of a request that is over; none when it went to the background.
kj::Maybe<uint8_t> BlkWorker::begin(Transfer& transfer) {
  const Request& request = transfer.request;
  switch (request.kind) {
    case Request::Kind::READ:
    case Request::Kind::WRITE:
      if (request.bytes == 0) return virtio::BLK_S_OK;
      return attempt(transfer);
    case Request::Kind::FLUSH:
      return attempt(transfer);
    case Request::Kind::GET_ID: {
      size_t size = kj::min(transfer.chain.writableBytes(), sizeof(settings.id));
      transfer.chain.writeBytes(kj::arrayPtr(settings.id, size));
      transfer.moved = size;
      return virtio::BLK_S_OK;
    }
    case Request::Kind::REFUSED:
      break;
  }
  return request.status;
}

// Has the rest of the request done, at once or in the background.
kj::Maybe<uint8_t> BlkWorker::attempt(Transfer& transfer) {
  virtio::Chain& chain = transfer.chain;
  for (;;) {
    uint64_t offset = transfer.request.offset + transfer.moved;
    kj::Maybe<int64_t> result;
    switch (transfer.request.kind) {
      case Request::Kind::READ:
        result = io.read(chain.writable(), offset, chain.head());
        break;
      case Request::Kind::WRITE:
        result = io.write(chain.readable(), offset, work.durability, chain.head());
        break;
      default:
        result = io.flush(chain.head());
        break;
    }
    KJ_IF_MAYBE (r, result) {
      kj::Maybe<uint8_t> status = account(transfer, *r);
      if (status != nullptr) return status;
    } else {
      return nullptr;
    }
  }
}

// Notes what a system call did; none when a part of the request is left to do.
kj::Maybe<uint8_t> BlkWorker::account(Transfer& transfer, int64_t result) {
  if (result < 0) return virtio::BLK_S_IOERR;
  if (transfer.request.kind == Request::Kind::FLUSH) return virtio::BLK_S_OK;
  if (result == 0) return virtio::BLK_S_IOERR;  // the file ends before the disk does
  if (transfer.request.kind == Request::Kind::READ) {
    transfer.chain.advanceWritable(result);
  } else {
    transfer.chain.advanceReadable(result);
  }
  transfer.moved += result;
  if (transfer.moved == transfer.request.bytes) return virtio::BLK_S_OK;
  return nullptr;
}

void BlkWorker::park(Transfer&& transfer) {
  uint16_t head = transfer.chain.head();
  background[head] = kj::mv(transfer);
  ++inBackground;
}

// The used length counts from the first writable byte without a gap (§2.7.8.2): the status behind
// the data counts only when the data before it is complete.
void BlkWorker::complete(Transfer&& transfer, uint8_t status) {
  virtio::Chain& chain = transfer.chain;
  chain.writeTail(kj::arrayPtr(&status, 1));
  uint32_t stored = transfer.request.kind == Request::Kind::WRITE ? 0 : transfer.moved;
  if (chain.writableBytes() == 0) stored += sizeof(status);
  finished(kj::mv(chain), stored);
}

void BlkWorker::finished(virtio::Chain&& chain, uint32_t written) {
  work.ring->push(kj::mv(chain), written);
  if (++untold == PUBLISH_AFTER) tellDriver();
}

void BlkWorker::tellDriver() {
  if (untold == 0) return;
  untold = 0;
  // At once, not at the end of the turn: the driver wakes up while we go on, and asks for the next
  // interrupt only when it has seen all there is. A full counter is the only failure: then the
  // interrupt is pending anyway.
  if (work.ring->publish()) eventfd_write(work.call, 1);
}

void BlkWorker::setNotifications(bool on) {
  if (on) {
    work.ring->enableNotifications();
  } else {
    work.ring->disableNotifications();
  }
  io.setNotifications(on);
}

bool BlkWorker::abandon() {
  io.setNotifications(true);
  io.submit();
  io.takeCompletions([this](uint64_t head, int64_t) {
    background[head] = nullptr;
    --inBackground;
  });
  return inBackground == 0;
}

}  // namespace troupe::blk
