#include "devices/virtio/flight_log.h"

#include <capnp/message.h>
#include <kj/debug.h>

#include <cstring>
#include <tuple>

#include "devices/virtio/spin.h"

namespace troupe::virtio {
namespace {

constexpr size_t EVENT_WORDS = 96;  // the largest event without its lists and data, twice over

// The table of a message of one segment.
struct SegmentTable {
  uint32_t countLessOne;
  uint32_t words;
};
static_assert(sizeof(SegmentTable) == sizeof(capnp::word), "Cap'n Proto's stream framing");

class Turn {
 public:
  explicit Turn(std::atomic_flag& busy) : busy(busy) {
    while (busy.test_and_set(std::memory_order_acquire))
      __builtin_ia32_pause();
  }
  ~Turn() { busy.clear(std::memory_order_release); }

 private:
  std::atomic_flag& busy;
};

}  // namespace

FlightLog::FlightLog(kj::ArrayPtr<kj::byte> memory, kj::ArrayPtr<const kj::byte> answers)
    : memory(memory), answers(answers) {
  KJ_REQUIRE(memory.size() >= LEAST_BYTES, "too little memory for a recording", memory.size());
  // The process before this one may have written anything.
  end = kj::max(head().end.load(), FIRST_EVENT);
  isFull = head().isFull.load() != 0 || end > memory.size() || end % sizeof(capnp::word) != 0;
}

void FlightLog::add(size_t words, kj::FunctionParam<void(FlightEvent::Builder)> fill) {
  Turn turn(busy);
  if (isFull || head().isFull.load(std::memory_order_relaxed) != 0) return;
  size_t room = (memory.size() - end) / sizeof(capnp::word);
  size_t most = words + EVENT_WORDS;
  auto failure = kj::runCatchingExceptions([&] {
    KJ_REQUIRE(most < room, "the recording is full");
    auto begin = memory.begin() + end;
    auto body = begin + sizeof(SegmentTable);
    memset(body, 0, most * sizeof(capnp::word));  // one that died may have left something
    capnp::FlatMessageBuilder message(kj::arrayPtr(reinterpret_cast<capnp::word*>(body), most));
    auto event = message.initRoot<FlightEvent>();
    event.setNanoseconds(monotonicNs());
    fill(event);
    uint32_t used = message.getSegmentsForOutput()[0].size();
    SegmentTable table{0, used};
    memcpy(begin, &table, sizeof(table));
    end += sizeof(table) + used * sizeof(capnp::word);
  });
  if (failure != nullptr) {
    isFull = true;
    head().isFull.store(1);
  }
  head().end.store(end);
}

kj::Maybe<HostAnswer> FlightLog::answerTo(uint16_t queue, uint64_t number, uint32_t ordinal,
                                          When when) const {
  using Entry = AnswerTable::Entry;
  if (answers.size() < sizeof(AnswerTable::Head)) return nullptr;
  AnswerTable::Head table;
  memcpy(&table, answers.begin(), sizeof(table));
  // Whoever replays stores it while this process runs.
  uint64_t reached = __atomic_load_n(
      &reinterpret_cast<const AnswerTable::Head*>(answers.begin())->reached, __ATOMIC_ACQUIRE);
  auto entries = answers.slice(sizeof(table), answers.size());
  auto wanted = std::make_tuple(queue, number, ordinal);
  uint64_t first = 0, last = kj::min(table.count, entries.size() / sizeof(Entry));
  while (first < last) {
    uint64_t middle = first + (last - first) / 2;
    Entry entry;
    memcpy(&entry, entries.begin() + middle * sizeof(Entry), sizeof(entry));
    auto found = std::make_tuple(entry.queue, entry.number, entry.ordinal);
    if (found == wanted) {
      bool inside = entry.dataOffset <= answers.size() &&
                    entry.dataBytes <= answers.size() - entry.dataOffset;
      if (!inside || (when == When::REACHED && entry.event >= reached)) return nullptr;
      return HostAnswer{static_cast<HostCall::Kind>(entry.kind), entry.offset, entry.result,
                        entry.allocating != 0,
                        answers.slice(entry.dataOffset, entry.dataOffset + entry.dataBytes)};
    }
    if (found < wanted) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return nullptr;
}

}  // namespace troupe::virtio
