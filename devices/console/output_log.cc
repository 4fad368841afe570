#include "devices/console/output_log.h"

#include <kj/debug.h>
#include <kj/string.h>

namespace troupe::console {

namespace {

// A reader holds the writer up from three quarters of the buffer on: the last quarter is for what
// the writer brings in one go.
size_t highWater(const ReplayBuffer& buffer) {
  return buffer.capacity() / 4 * 3;
}

// What a reader must take within PATIENCE to count as alive: 640 kB/s with a buffer of 1 MiB.
size_t leastProgress(const ReplayBuffer& buffer) {
  return buffer.capacity() / 16;
}

}  // namespace

constexpr kj::Duration OutputLog::PATIENCE;

constexpr size_t OutputLog::MOST_AT_ONCE;

OutputLog::OutputLog(kj::Timer& timer, size_t capacity)
    : timer(timer), kept(keptHere), buffer(capacity), place(kept.told) {}

OutputLog::OutputLog(kj::Timer& timer, KeptOutput& kept, kj::ArrayPtr<kj::byte> memory)
    : timer(timer), kept(kept), buffer(memory, kept.end, MOST_AT_ONCE), place(kept.told) {}

void OutputLog::takeOver() {
  KJ_REQUIRE(readers.size() == 0, "somebody reads what was another process's");
  buffer.takeOver();
}

uint64_t OutputLog::startOf(From from) const {
  switch (from) {
    case From::OLDEST:
      return buffer.begin();
    case From::NOW:
      return buffer.end();
    case From::WHERE_IT_WAS:
      return kj::min(kept.delivered, buffer.end());
  }
  KJ_UNREACHABLE;
}

OutputLog::Reader::Reader(OutputLog& log, From from)
    : log(log), position(log.startOf(from)), isKept(from == From::WHERE_IT_WAS) {
  // One that starts far behind is waited for only once it takes bytes: else whoever connects again
  // and again could hold the guest up for good.
  stuck = behind() > highWater(log.buffer);
  log.readers.add(this);
}

OutputLog::Reader::~Reader() noexcept(false) {
  for (auto& reader : log.readers) {
    if (reader != this) continue;
    reader = log.readers.back();
    log.readers.removeLast();
    break;
  }
  if (!log.congested()) log.cleared.raise();
  if (log.empty()) log.emptied.raise();
}

uint64_t OutputLog::Reader::behind() const {
  return log.buffer.end() - position + (lostLine.size() - lostLineTaken);
}

kj::ArrayPtr<const kj::byte> OutputLog::Reader::next() {
  if (lostLine.size() == lostLineTaken && position < log.buffer.begin()) {
    lostLine = kj::str("\r\n[troupe: ", log.buffer.begin() - position, " bytes lost]\r\n");
    lostLineTaken = 0;
    position = log.buffer.begin();
  }
  if (lostLineTaken < lostLine.size()) {
    return lostLine.asBytes().slice(lostLineTaken, lostLine.size());
  }
  return log.buffer.from(position);
}

void OutputLog::Reader::took(size_t count) {
  taken += count;
  if (lostLineTaken < lostLine.size()) {
    KJ_REQUIRE(count <= lostLine.size() - lostLineTaken);
    lostLineTaken += count;
  } else {
    KJ_REQUIRE(count <= log.buffer.end() - position);
    position += count;
    if (isKept) __atomic_store_n(&log.kept.delivered, position, __ATOMIC_RELEASE);
  }
  // It had stopped: it is waited for again once it has taken a good piece.
  if (stuck && taken - checkpoint >= 4 * leastProgress(log.buffer)) {
    stuck = false;
    idleTurns = 0;
  }
  if (!log.congested()) log.cleared.raise();
  if (log.empty()) log.emptied.raise();
}

kj::Promise<void> OutputLog::Reader::whenMore() {
  if (behind() > 0) return kj::READY_NOW;
  return log.written.wait();
}

void OutputLog::write(kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes.size() == 0) return;
  buffer.append(bytes);
  written.raise();
}

uint64_t OutputLog::untold(uint16_t usedIndex) const {
  KJ_IF_MAYBE (known, place.at(usedIndex)) {
    if (*known <= end()) return end() - *known;
  }
  return 0;
}

void OutputLog::writeAside(kj::ArrayPtr<const kj::byte> bytes) {
  write(bytes);
  place.shift(bytes.size());
}

bool OutputLog::congested() const {
  for (auto reader : readers) {
    if (!reader->stuck && reader->behind() > highWater(buffer)) return true;
  }
  return false;
}

void OutputLog::judge() {
  for (auto reader : readers) {
    if (reader->stuck || reader->behind() <= highWater(buffer)) continue;
    bool idle = reader->taken - reader->checkpoint < leastProgress(buffer);
    reader->idleTurns = idle ? reader->idleTurns + 1 : 0;
    reader->stuck = reader->idleTurns >= 2;
    reader->checkpoint = reader->taken;
  }
}

kj::Promise<void> OutputLog::whenClear() {
  if (!congested()) return kj::READY_NOW;
  for (auto reader : readers) {
    if (!reader->stuck) reader->checkpoint = reader->taken;
  }
  auto patience = timer.afterDelay(PATIENCE / 2).then([this]() { judge(); });
  return cleared.wait().exclusiveJoin(kj::mv(patience)).then([this]() { return whenClear(); });
}

bool OutputLog::empty() const {
  for (auto reader : readers) {
    if (reader->behind() > 0) return false;
  }
  return true;
}

uint64_t OutputLog::totalTaken() const {
  uint64_t total = 0;
  for (auto reader : readers)
    total += reader->taken;
  return total;
}

kj::Promise<void> OutputLog::drained(kj::Duration patience) {
  if (empty()) return kj::READY_NOW;
  auto before = totalTaken();
  auto count = readers.size();
  return emptied.wait()
      .exclusiveJoin(timer.afterDelay(patience))
      .then([this, patience, before, count]() -> kj::Promise<void> {
        // A reader that left counts as progress: those who remain may have waited for the timer.
        if (totalTaken() == before && readers.size() == count) return kj::READY_NOW;
        return drained(patience);
      });
}

}  // namespace troupe::console
