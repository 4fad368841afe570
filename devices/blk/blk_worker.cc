#include "devices/blk/blk_worker.h"

#include <kj/debug.h>
#include <sys/eventfd.h>

#include "devices/virtio/queue_flight.h"
#include "tests/fuzz/planted.h"

namespace troupe::blk {
namespace {

// The driver sees finished requests in groups of this size: soon enough to prepare the next ones
// while we go on, seldom enough that the two CPUs do not fight over the index.
constexpr uint32_t PUBLISH_AFTER = 8;

kj::Maybe<DiskIo::Change> changeOf(Request::Kind kind) {
  switch (kind) {
    case Request::Kind::DISCARD:
      return DiskIo::Change::DISCARD;
    case Request::Kind::ZEROES:
      return DiskIo::Change::ZERO;
    case Request::Kind::ZEROES_KEEPING_PLACE:
      return DiskIo::Change::ZERO_KEEPING_PLACE;
    default:
      return nullptr;
  }
}

HostCall::Kind callKindOf(Request::Kind kind) {
  switch (kind) {
    case Request::Kind::READ:
      return HostCall::Kind::READ;
    case Request::Kind::WRITE:
      return HostCall::Kind::WRITE;
    case Request::Kind::DISCARD:
      return HostCall::Kind::DISCARD;
    case Request::Kind::ZEROES:
      return HostCall::Kind::ZERO;
    case Request::Kind::ZEROES_KEEPING_PLACE:
      return HostCall::Kind::ZERO_KEEPING_PLACE;
    default:
      return HostCall::Kind::FLUSH;
  }
}

}  // namespace

BlkWorker::BlkWorker(const BlkSettings& settings, int wake)
    : settings(settings),
      io(settings.disk, settings.image, settings.overlay, QUEUE_SIZE, wake),
      background(kj::heapArray<kj::Maybe<Transfer>>(QUEUE_SIZE)) {}

void BlkWorker::begin(const BlkWork& newWork) {
  KJ_REQUIRE(newWork.ring->size() <= background.size());
  work = newWork;
  untold = 0;
  io.begin();
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
    if (throttledNs() > 0) return;
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
  if (chain.isDeadly()) {
    // Nothing of it is looked at but where its status goes.
    if (!chain.reserveTail(1)) return finished(kj::mv(chain), 0);
    Request refused{Request::Kind::REFUSED, virtio::BLK_S_IOERR, 0, 0};
    return complete(Transfer{kj::mv(chain), refused}, refused.status);
  }
  KJ_IF_MAYBE (request, parse(chain, settings.shape())) {
    if (!settings.limit.unlimited()) {
      uint64_t moved = request->kind == Request::Kind::DISCARD ? 0 : request->bytes;
      settings.limit.take(moved, virtio::monotonicNs());
    }
    Transfer transfer{kj::mv(chain), *request};
    KJ_IF_MAYBE (status, begin(transfer)) {
      complete(kj::mv(transfer), *status);
    } else {
      park(kj::mv(transfer));
    }
  } else {
    work.ring->countError();
    finished(kj::mv(chain), 0);
  }
}

// The status of a request that is over; none when it went to the background.
kj::Maybe<uint8_t> BlkWorker::begin(Transfer& transfer) {
  const Request& request = transfer.request;
  switch (request.kind) {
    case Request::Kind::READ:
    case Request::Kind::WRITE:
    case Request::Kind::DISCARD:
    case Request::Kind::ZEROES:
    case Request::Kind::ZEROES_KEEPING_PLACE:
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
  // Of a compressed image, say, each cluster is a step that takes CPU time.
  for (;; work.ring->beat()) {
    KJ_IF_MAYBE (result, step(transfer)) {
      kj::Maybe<uint8_t> status = account(transfer, *result);
      if (status != nullptr) return status;
    } else {
      return nullptr;
    }
  }
}

// Begins what is to be done next.
kj::Maybe<int64_t> BlkWorker::step(Transfer& transfer) {
  virtio::Chain& chain = transfer.chain;
  const Request& request = transfer.request;
  bool goesOn = !fuzz::isPlanted(fuzz::Bug::SHORT_TRANSFER);
  uint64_t offset = request.offset + (goesOn ? transfer.moved : 0);
  uint32_t rest = request.bytes - transfer.moved;
  if (virtio::QueueFlight* flight = work.ring->flight()) {
    transfer.durable = durability() == DiskIo::Durability::DURABLE;
    transfer.stepOffset = offset;
    if (flight->isReplaying()) return replay(transfer, *flight);
  }
  KJ_IF_MAYBE (change, changeOf(request.kind)) {
    if (rest == 0) return io.flush(chain.head());
    transfer.allocating = io.allocates(*change);
    return io.change(*change, offset, rest, durability(), chain.head());
  }
  switch (request.kind) {
    case Request::Kind::READ:
      return io.read(chain.writable(), offset, chain.head());
    case Request::Kind::WRITE:
      return io.write(chain.readable(), offset, durability(), chain.head());
    default:
      return io.flush(chain.head());
  }
}

// What the host of a recording answered, in place of this one.
int64_t BlkWorker::replay(Transfer& transfer, virtio::QueueFlight& flight) {
  auto answer = flight.answer(transfer.chain.head());
  transfer.allocating = answer.allocating;
  if (transfer.request.kind != Request::Kind::READ) return answer.result;
  size_t done = 0;
  for (const iovec& piece : transfer.chain.writable()) {
    size_t part = kj::min(piece.iov_len, answer.data.size() - done);
    if (part == 0) break;
    virtio::copyIn(static_cast<kj::byte*>(piece.iov_base), answer.data.slice(done, done + part));
    done += part;
  }
  return answer.result < 0 ? answer.result : int64_t(done);
}

// For the flight recorder, before `transfer` goes on.
void BlkWorker::record(const Transfer& transfer, int64_t result) {
  virtio::QueueFlight* flight = work.ring->flight();
  if (flight == nullptr) return;
  const Request& request = transfer.request;
  bool isFlush = transfer.moved == request.bytes;
  virtio::QueueFlight::Call call{callKindOf(isFlush ? Request::Kind::FLUSH : request.kind)};
  call.offset = isFlush ? 0 : transfer.stepOffset;
  call.bytes = request.bytes - transfer.moved;
  call.durable = transfer.durable;
  call.allocating = transfer.allocating;
  if (request.kind == Request::Kind::WRITE) call.outgoing = transfer.chain.readable();
  flight->called(transfer.chain.head(), call, result);
}

// Notes what a system call did; none when a part of the request is left to do.
kj::Maybe<uint8_t> BlkWorker::account(Transfer& transfer, int64_t result) {
  record(transfer, result);
  const Request& request = transfer.request;
  KJ_IF_MAYBE (change, changeOf(request.kind)) {
    if (transfer.moved == request.bytes) return result < 0 ? virtio::BLK_S_IOERR : virtio::BLK_S_OK;
    if (transfer.allocating) {
      result = io.allocated(*change, result, request.bytes - transfer.moved);
      if (result == 0) return nullptr;
      transfer.unstable = *change != DiskIo::Change::DISCARD;
    }
    // Zeroes are written by whole sectors: of one that a host wrote in part, all is written again.
    if (result > 0) result -= result % virtio::BLK_SECTOR_BYTES;
  }
  if (result < 0) {
    bool isTold = !fuzz::isPlanted(fuzz::Bug::ERROR_IGNORED);
    return isTold ? virtio::BLK_S_IOERR : virtio::BLK_S_OK;
  }
  if (request.kind == Request::Kind::FLUSH) return virtio::BLK_S_OK;
  if (result == 0) return virtio::BLK_S_IOERR;  // the file ends before the disk does
  if (request.kind == Request::Kind::READ) {
    transfer.chain.advanceWritable(result);
  } else if (request.kind == Request::Kind::WRITE) {
    transfer.chain.advanceReadable(result);
  }
  transfer.moved += result;
  if (transfer.moved < request.bytes) return nullptr;
  // A file system makes zeroes that are stable with the next sync only.
  if (transfer.unstable && durability() == DiskIo::Durability::DURABLE) return nullptr;
  return virtio::BLK_S_OK;
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
  if (status != virtio::BLK_S_OK) work.ring->countError();
  bool storesData = transfer.request.kind == Request::Kind::READ ||
                    transfer.request.kind == Request::Kind::GET_ID;
  uint32_t stored = storesData ? transfer.moved : 0;
  if (chain.writableBytes() == 0 || fuzz::isPlanted(fuzz::Bug::USED_LENGTH)) {
    stored += sizeof(status);
  }
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
  if (inBackground > 0) return false;
  io.rest();
  return true;
}

}  // namespace troupe::blk
