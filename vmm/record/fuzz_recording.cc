// Fuzzes a recording, which may be anybody's file: all that `troupe replay` does with it but for
// the device that it starts. Errors are TRP-rec-006 and 007, and nothing else comes of it.
#include <kj/debug.h>

#include <cstring>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "vmm/record/answer_table.h"
#include "vmm/record/event_words.h"
#include "vmm/record/flight_index.h"
#include "vmm/record/recording_reader.h"
#include "vmm/record/replay_ram.h"

namespace troupe {
namespace {

using fuzz::finding;

constexpr uint64_t MOST_ANSWERS = 64 << 20;
// A replay's RAM is as large as the file says, and most of what it says is nonsense.
constexpr uint64_t MOST_RAM = 64 << 20;

bool isSmall(capnp::List<RamRegion>::Reader regions) {
  uint64_t end = 0;
  for (auto region : regions) {
    if (region.getFileOffset() > MOST_RAM || region.getSize() > MOST_RAM) return false;
    end = kj::max(end, region.getFileOffset() + region.getSize());
  }
  return end <= MOST_RAM;
}

void checkLine(kj::StringPtr line) {
  for (char c : line)
    if (c >= 0 && c < ' ') finding("an event is more than one line of text");
}

class Reading {
 public:
  explicit Reading(const EventList& events) : events(events) {}

  void read(RecordingReader& recording) {
    FlightIndex index;
    index.update(events);
    makeAnswerTable(events, index, MOST_ANSWERS);
    kj::str(recording.head().getDevice(), recording.head().getKind());
    for (size_t i = 0; i < events.size(); i++)
      events.with(i, [&](FlightEvent::Reader event) { meet(event); });
  }

 private:
  void meet(FlightEvent::Reader event) {
    checkLine(eventWords(event));
    if (differenceOf(event, event) != nullptr) finding("an event differs from itself");
    if (event.isAttached() && isSmall(event.getAttached()))
      ram = kj::heap<ReplayRam>(event.getAttached());
    if (event.isActivated() && ram.get() != nullptr) activate(event);
    if (!event.isTaken()) return;
    KJ_IF_MAYBE (one, driver) {
      one->make(event.getTaken());
    }
  }

  void activate(FlightEvent::Reader event) {
    for (auto queue : event.getActivated().getQueues())
      driver.emplace(*ram, queue);
  }

  const EventList& events;
  kj::Own<ReplayRam> ram;
  kj::Maybe<ReplayDriver> driver;
};

void run(kj::ArrayPtr<const kj::byte> input) {
  auto failure = kj::runCatchingExceptions([&] {
    RecordingReader recording("fuzzed", input);
    recording.checked([&] {
      Reading reading(recording.events());
      reading.read(recording);
      return true;
    });
  });
  KJ_IF_MAYBE (why, failure) {
    if (!why->getDescription().startsWith("TRP-rec-006")) finding(why->getDescription());
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  troupe::run(kj::arrayPtr(data, size));
  return 0;
}
