#include "devices/balloon/statistics_queue.h"

#include <endian.h>

#include <cstring>

#include "devices/balloon/wire.h"
#include "tests/fuzz/planted.h"

namespace troupe::balloon {

void StatisticsQueue::turn() {
  for (;;) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      if (chain->isDeadly()) {
        // Unread: the driver fills it anew.
        ring.countError();
        ring.push(kj::mv(*chain), 0);
        continue;
      }
      parse(*chain);
      ask();
      kept = kj::mv(*chain);
    } else {
      return;
    }
  }
}

bool StatisticsQueue::ask() {
  KJ_IF_MAYBE (chain, kept) {
    ring.push(kj::mv(*chain), 0);
    kept = nullptr;
    return true;
  }
  return false;
}

// A buffer that ends amid an entry makes no sense: then nothing of it counts.
void StatisticsQueue::parse(virtio::Chain& chain) {
  ++read;
  wasLeftBehind = chain.isLeftBehind();
  said.count = 0;
  if (chain.readableBytes() % STATISTIC_BYTES != 0) return;
  kj::byte entry[STATISTIC_BYTES];
  while ((said.count < MOST || fuzz::isPlanted(fuzz::Bug::STATISTICS_LENGTH)) &&
         chain.readBytes(entry)) {
    uint16_t tag;
    uint64_t value;
    memcpy(&tag, entry, sizeof(tag));
    memcpy(&value, entry + sizeof(tag), sizeof(value));
    said.last[said.count++] = Statistic{le16toh(tag), le64toh(value)};
  }
}

}  // namespace troupe::balloon
