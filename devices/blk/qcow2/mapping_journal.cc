#include "devices/blk/qcow2/mapping_journal.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include <algorithm>

namespace troupe::blk::qcow2 {

MappingJournal::MappingJournal(kj::ArrayPtr<kj::byte> memory)
    : memory(memory.begin()),
      capacity(memory.size() < HEADER ? 0 : (memory.size() - HEADER) / RECORD) {
  KJ_REQUIRE(capacity >= ROOM, "too little memory for a journal of mappings", memory.size());
}

kj::Maybe<kj::Array<MappingJournal::Record>> MappingJournal::recover() const {
  uint64_t said = load(COUNT);
  uint64_t isOpen = load(IS_OPEN);
  KJ_REQUIRE(isOpen <= 1 && said <= capacity && (isOpen == 1 || said == 0),
             "TRP-blk-029: what the process before left of an image's mappings makes no sense",
             said, isOpen);
  if (isOpen == 0) return nullptr;

  kj::Vector<Record> records(said);
  for (uint64_t i = 0; i < said; i++) {
    uint64_t at = HEADER + i * RECORD;
    records.add(Record{load(at), load(at + ENTRY)});
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const Record& a, const Record& b) { return a.cluster < b.cluster; });
  size_t kept = 0;
  for (const Record& record : records) {
    if (kept > 0 && records[kept - 1].cluster == record.cluster) --kept;
    records[kept++] = record;
  }
  records.resize(kept);
  return records.releaseAsArray();
}

void MappingJournal::add(Record record) {
  KJ_ASSERT(count < capacity, "no look at hasRoom()");
  uint64_t at = HEADER + count * RECORD;
  store(at, record.cluster);
  store(at + ENTRY, record.entry);
  store(COUNT, ++count);
}

void MappingJournal::clear() {
  if (count == 0) return;
  count = 0;
  store(COUNT, 0);
}

void MappingJournal::close() {
  count = 0;
  store(COUNT, 0);
  store(IS_OPEN, 0);
}

}  // namespace troupe::blk::qcow2
