#include "vmm/record/answer_table.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include <cstring>

#include "devices/virtio/flight_log.h"

namespace troupe {

namespace {

using virtio::AnswerTable;

// What came from the host, and is to be found in what the driver got.
bool isIncoming(HostCall::Kind kind) {
  return kind == HostCall::Kind::READ || kind == HostCall::Kind::RANDOM ||
         kind == HostCall::Kind::INPUT;
}

AnswerTable::Entry entryOf(const ChainKey& key, uint32_t ordinal, size_t event,
                           HostCall::Reader call) {
  return {key.queue, call.getAllocating(), uint8_t(call.getKind()), ordinal, key.number,
          event,     call.getOffset(),     call.getResult(),        0,       0};
}

class Table {
 public:
  Table(const EventList& events, uint64_t mostBytes) : events(events), mostBytes(mostBytes) {}

  void add(const ChainKey& key, const FlightIndex::Chain& chain) {
    if (key.number == 0) return addBesideChains(key, chain);
    kj::Array<kj::byte> received = chain.answered.empty() ? nullptr : bytesOf(chain.answered[0]);
    size_t used = 0;
    uint32_t ordinal = 0;
    for (size_t at : chain.called) {
      events.with(at, [&](FlightEvent::Reader event) {
        auto call = event.getCalled();
        size_t size = 0;
        if (isIncoming(call.getKind()) && call.getResult() > 0) {
          // Of a chain that was not answered any more nobody knows what it was given.
          if (chain.answered.empty()) return addUnknown(entryOf(key, ordinal++, at, call));
          size = kj::min(uint64_t(call.getResult()), received.size() - used);
        }
        addKnown(entryOf(key, ordinal++, at, call), received.slice(used, used + size));
        used += size;
      });
      checkSize();
    }
  }

  kj::Array<kj::byte> finish() {
    AnswerTable::Head head{entries.size(), 0};
    for (auto& entry : entries) {
      if (entry.dataOffset == UNKNOWN) entry.dataOffset = data.size();
    }
    for (size_t i = 0; i < zeroes; i++)
      data.add(0);
    size_t front = sizeof(head) + entries.size() * sizeof(AnswerTable::Entry);
    for (auto& entry : entries)
      entry.dataOffset += front;
    auto bytes = kj::heapArray<kj::byte>(front + data.size());
    memcpy(bytes.begin(), &head, sizeof(head));
    if (entries.size() > 0)
      memcpy(bytes.begin() + sizeof(head), entries.begin(), front - sizeof(head));
    if (data.size() > 0) memcpy(bytes.begin() + front, data.begin(), data.size());
    return bytes;
  }

 private:
  // What came is in the calls themselves.
  void addBesideChains(const ChainKey& key, const FlightIndex::Chain& calls) {
    uint32_t ordinal = 0;
    for (size_t at : calls.called) {
      events.with(at, [&](FlightEvent::Reader event) {
        auto call = event.getCalled();
        addKnown(entryOf(key, ordinal++, at, call), call.getData());
      });
      checkSize();
    }
  }

  void addKnown(AnswerTable::Entry entry, kj::ArrayPtr<const kj::byte> bytes) {
    entry.dataOffset = data.size();
    entry.dataBytes = bytes.size();
    entries.add(entry);
    data.addAll(bytes);
  }

  void checkSize() const {
    KJ_REQUIRE(data.size() + entries.size() * sizeof(AnswerTable::Entry) <= mostBytes,
               "it answers with more than it holds");
  }

  kj::Array<kj::byte> bytesOf(size_t at) {
    return events.with(at, [](FlightEvent::Reader event) {
      return kj::heapArray<kj::byte>(event.getAnswered().getBytes());
    });
  }

  // Zeroes, which all of them share.
  void addUnknown(AnswerTable::Entry entry) {
    entry.dataOffset = UNKNOWN;
    entry.dataBytes = kj::min(uint64_t(entry.result), MOST_UNKNOWN);
    zeroes = kj::max(zeroes, entry.dataBytes);
    entries.add(entry);
  }

  static constexpr uint64_t UNKNOWN = UINT64_MAX;
  static constexpr uint64_t MOST_UNKNOWN = 4 << 20;

  const EventList& events;
  const uint64_t mostBytes;
  uint64_t zeroes = 0;
  kj::Vector<AnswerTable::Entry> entries;
  kj::Vector<kj::byte> data;
};

}  // namespace

kj::Array<kj::byte> makeAnswerTable(const EventList& events, const FlightIndex& index,
                                    uint64_t mostBytes) {
  Table table(events, mostBytes);
  for (auto& [key, chain] : index.chains())
    table.add(key, chain);
  return table.finish();
}

}  // namespace troupe
