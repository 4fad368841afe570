#include "vmm/config/disk_option.h"

#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/split.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr BACKING = "backing"_kj;  // the one part that may be said again

void setQueues(kj::StringPtr value, DiskConfig::Builder disk) {
  KJ_IF_MAYBE (count, parseNumber(value, UINT16_MAX)) {
    disk.setQueues(static_cast<uint16_t>(*count));
    return;
  }
  UserError(codes::DISK_OPTION, kj::str("--disk ", quote(disk.getPath()), ": queues=",
                                        escape(value), " is not a number from 1 to 16"))
      .raise();
}

// One more behind those said before.
void addBacking(kj::StringPtr value, DiskConfig::Builder disk) {
  auto earlier = disk.getBacking();
  kj::Vector<kj::String> all;
  for (auto text : earlier.asReader())
    all.add(kj::heapString(text));
  all.add(kj::heapString(value));
  auto list = disk.initBacking(all.size());
  for (uint32_t i = 0; i < all.size(); i++)
    list.set(i, all[i]);
}

// A word that may follow the path: alone, or with a value behind '='.
struct Part {
  kj::StringPtr name;
  bool hasValue;
  void (*apply)(kj::StringPtr value, DiskConfig::Builder disk);
};

using Value = kj::StringPtr;
using Disk = DiskConfig::Builder;
const Part PARTS[] = {
    {"ro"_kj, false, [](Value, Disk disk) { disk.setRo(true); }},
    {"rw"_kj, false, [](Value, Disk disk) { disk.setRo(false); }},
    {"volatile"_kj, false, [](Value, Disk disk) { disk.setVolatile(true); }},
    {"format"_kj, true, [](Value value, Disk disk) { disk.setFormat(value); }},
    {BACKING, true, addBacking},
    {"id"_kj, true, [](Value value, Disk disk) { disk.setId(value); }},
    {"serial"_kj, true, [](Value value, Disk disk) { disk.setSerial(value); }},
    {"direct"_kj, false, [](Value, Disk disk) { disk.setDirect(true); }},
    {"queues"_kj, true, setQueues},
    {"rate"_kj, true, [](Value value, Disk disk) { disk.setRate(value); }},
};

const Part& partNamed(kj::StringPtr name, kj::StringPtr said, kj::StringPtr text) {
  kj::Vector<kj::StringPtr> names;
  for (auto& part : PARTS) {
    if (part.name == name) return part;
    names.add(part.name);
  }
  UserError(
      codes::DISK_OPTION,
      kj::str("--disk ", quote(text), ": ",
              said.size() == 0 ? kj::str("there is nothing behind a comma")
                               : kj::str("unknown part ", quote(said), didYouMean(name, names)),
              "; after the path come ro, rw or volatile, format=raw or qcow2, backing=PATH:FORMAT, "
              "id=ID, "
              "serial=TEXT, direct, queues=N or rate=RATE, and a comma in the path is written "
              "twice"))
      .raise();
}

// Two names for one thing count as one.
bool excludeEachOther(kj::StringPtr one, kj::StringPtr other) {
  auto isMode = [](kj::StringPtr name) {
    return name == "ro" || name == "rw" || name == "volatile";
  };
  return one == other || (isMode(one) && isMode(other));
}

void checkFirst(kj::ArrayPtr<const kj::StringPtr> seen, kj::StringPtr name, kj::StringPtr text) {
  for (kj::StringPtr earlier : seen) {
    if (!excludeEachOther(earlier, name)) continue;
    UserError(codes::GIVEN_TWICE,
              earlier == name
                  ? kj::str("--disk ", quote(text), ": ", quote(name), " is given twice")
                  : kj::str("--disk ", quote(text), ": ", quote(earlier), " and ", quote(name),
                            " exclude each other"))
        .raise();
  }
}

}  // namespace

void parseDisk(kj::StringPtr text, DiskConfig::Builder disk) {
  auto words = splitAtCommas(text, true);
  disk.setPath(words[0]);
  kj::Vector<kj::StringPtr> seen;
  for (size_t i = 1; i < words.size(); i++) {
    kj::StringPtr word = words[i];
    auto name = kj::heapString(word);
    kj::Maybe<kj::StringPtr> value;
    KJ_IF_MAYBE (equals, word.findFirst('=')) {
      name = kj::heapString(word.begin(), *equals);
      value = word.slice(*equals + 1);
    }
    const Part& part = partNamed(name, word, text);
    if (part.name != BACKING) checkFirst(seen, part.name, text);
    bool wellFormed = part.hasValue ? value.orDefault(""_kj).size() > 0 : value == nullptr;
    if (!wellFormed) {
      UserError(codes::DISK_OPTION, kj::str("--disk ", quote(text), ": ", quote(name),
                                            part.hasValue ? " needs a value" : " takes no value"))
          .raise();
    }
    part.apply(value.orDefault(""_kj), disk);
    seen.add(part.name);
  }
}

}  // namespace troupe
