#include "devices/balloon/page_queues.h"

#include <endian.h>

#include "devices/balloon/wire.h"

namespace troupe::balloon {
namespace {

constexpr size_t NUMBERS_AT_ONCE = 256;  // what Linux sends at a time

}  // namespace

void InflateQueue::turn(PageBatch& batch) {
  while (!batch.isFull()) {
    if (current == nullptr) current = ring.pop();
    KJ_IF_MAYBE (chain, current) {
      // What processes keep dying of is answered unread: its pages stay with the guest.
      if (chain->isDeadly()) {
        ring.countError();
      } else if (!read(*chain, batch)) {
        return;
      }
      ring.push(kj::mv(*chain), 0);
      current = nullptr;
    } else {
      return;
    }
  }
}

// False when the batch is full before the chain is at its end. What is left over of a number there
// is none.
bool InflateQueue::read(virtio::Chain& chain, PageBatch& batch) {
  uint32_t numbers[NUMBERS_AT_ONCE];
  while (chain.readableBytes() >= sizeof(uint32_t)) {
    if (batch.isFull()) return false;
    size_t count = kj::min(chain.readableBytes() / sizeof(uint32_t), NUMBERS_AT_ONCE);
    count = kj::min(count, batch.room());
    chain.readBytes(kj::arrayPtr(numbers, count).asBytes());
    for (size_t i = 0; i < count; i++)
      batch.addPage(le32toh(numbers[i]));
  }
  return true;
}

void DeflateQueue::turn() {
  for (;;) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      if (chain->isDeadly()) ring.countError();  // answered as any other: nothing of it is read
      ring.push(kj::mv(*chain), 0);
    } else {
      return;
    }
  }
}

void FreePageQueue::turn(PageBatch& batch, bool taken) {
  while (!batch.isFull()) {
    if (current == nullptr) {
      current = ring.pop();
      KJ_IF_MAYBE (chain, current) {
        if (chain->isDeadly()) {
          ring.countError();
          refuse(*chain);
          currentCounts = false;
        } else {
          currentCounts = begin(*chain) && taken;
        }
      }
    }
    KJ_IF_MAYBE (chain, current) {
      if (currentCounts && !read(*chain, batch)) return;
      ring.push(kj::mv(*chain), 0);
      current = nullptr;
    } else {
      return;
    }
  }
}

bool FreePageQueue::read(virtio::Chain& chain, PageBatch& batch) {
  while (chain.writableBytes() > 0) {
    const iovec& piece = chain.writable().front();
    uint64_t size = piece.iov_len;
    uint64_t done = batch.addBuffer(piece);
    chain.advanceWritable(done);
    if (done < size) return false;
  }
  return true;
}

bool HintQueue::begin(virtio::Chain& chain) {
  uint32_t command;
  if (chain.read(command)) {
    command = le32toh(command);
    if (command == CMD_ID_STOP && round.isOpen != 0) ended = true;
    round.isOpen = command == round.wanted && command >= FIRST_CMD_ID;
  }
  return round.isOpen != 0;
}

// It may have been the end of the round, for which the driver waits with all that it has hinted.
void HintQueue::refuse(virtio::Chain& chain) {
  if (chain.readableBytes() == 0 || round.isOpen == 0) return;
  round.isOpen = 0;
  ended = true;
}

bool HintQueue::takeEnd() {
  bool result = ended;
  ended = false;
  return result;
}

}  // namespace troupe::balloon
