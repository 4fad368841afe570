// A recording is read as a stranger's: whatever is in the file, there is one clear error or none.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <string>

#include "devices/virtio/queue_flight.h"
#include "devices/virtio/testing/ring_bench.h"
#include "vmm/record/answer_table.h"
#include "vmm/record/event_words.h"
#include "vmm/record/recording_reader.h"
#include "vmm/record/replay_ram.h"

namespace troupe {
namespace {

using virtio::FlightLog;
using virtio::testing::FakeRam;
using virtio::testing::Ring;

constexpr uint64_t MOST_ANSWERS = 64 << 20;

// A sound file: a disk that is asked for a few sectors, answers, and is asked for nonsense.
std::string soundFile() {
  std::vector<uint64_t> words(FlightLog::LEAST_BYTES / 8);
  FlightLog log(kj::arrayPtr(words.data(), words.size()).asBytes(), nullptr);
  log.add(64, [](FlightEvent::Builder event) {
    auto info = event.initBegan();
    info.setDeviceType(2);
    info.initQueueSizes(1).set(0, 8);
    info.initConfig(72);
  });
  log.add(8, [](FlightEvent::Builder event) {
    event.initAttached(1)[0].setSize(FakeRam().bytes(0, 4 << 20).size());
  });
  Ring ring;
  ring.queue.record(kj::heap<virtio::QueueFlight>(log, 0, ring.queue.size()));
  log.add(16, [&](FlightEvent::Builder event) {
    auto queue = event.initActivated().initQueues(1)[0];
    auto layout = ring.driver.layout();
    queue.setSize(layout.size);
    queue.setDescriptorTable(layout.descriptorTable);
    queue.setAvailableRing(layout.availableRing);
    queue.setUsedRing(layout.usedRing);
  });
  for (int i = 0; i < 6; i++) {
    auto question = ring.driver.readableBuffer("a header of 16 b"_kj.asBytes());
    auto room = ring.driver.writableBuffer(64);
    uint16_t head =
        i % 2 == 0 ? ring.driver.add({question, room}) : ring.driver.addIndirect({question, room});
    auto chain = KJ_ASSERT_NONNULL(ring.queue.pop());
    chain.writeBytes("what was read"_kj.asBytes());
    ring.queue.flight()->called(head, {HostCall::Kind::READ, 512, 64}, 13);
    ring.queue.push(kj::mv(chain), 13);
    ring.queue.publish();
    ring.driver.takeUsed();
  }
  ring.driver.makeAvailable(99);
  EXPECT_TRUE(ring.queue.pop() == nullptr);

  capnp::MallocMessageBuilder message;
  auto head = message.initRoot<Recording>();
  head.setVersion(Recording::CURRENT_VERSION);
  head.setDevice("blk0");
  head.setKind("blk");
  auto front = capnp::messageToFlatArray(message);
  auto bytes = front.asBytes();
  std::string file(bytes.begin(), bytes.end());
  auto memory = reinterpret_cast<const char*>(words.data());
  auto end = reinterpret_cast<const FlightLog::Head*>(words.data())->end.load();
  return file + std::string(memory + FlightLog::FIRST_EVENT, memory + end);
}

class Scratch {
 public:
  Scratch() { KJ_ASSERT(mkstemp(name) >= 0); }
  ~Scratch() { unlink(name); }
  kj::StringPtr path() const { return name; }
  void write(const std::string& content) {
    std::ofstream(name, std::ios::binary | std::ios::trunc) << content;
  }

 private:
  char name[32] = "/tmp/recording.XXXXXX";
};

// All that a replay does with a file but for the device. The events it has.
size_t readAll(kj::StringPtr path) {
  RecordingReader recording(path);
  return recording.checked([&]() {
    auto& events = recording.events();
    FlightIndex index;
    index.update(events);
    makeAnswerTable(events, index, MOST_ANSWERS);
    kj::str(recording.head().getDevice(), recording.head().getKind());
    kj::Own<ReplayRam> ram;
    kj::Maybe<ReplayDriver> driver;
    for (size_t i = 0; i < events.size(); i++) {
      events.with(i, [&](FlightEvent::Reader event) {
        eventWords(event);
        differenceOf(event, event);
        if (event.isAttached()) ram = kj::heap<ReplayRam>(event.getAttached());
        if (event.isActivated() && ram.get() != nullptr && event.getActivated().getQueues().size())
          driver.emplace(*ram, event.getActivated().getQueues()[0]);
        if (!event.isTaken()) return;
        KJ_IF_MAYBE (one, driver) {
          one->make(event.getTaken());
        }
      });
    }
    return events.size();
  });
}

std::string errorOf(Scratch& file, const std::string& content) {
  file.write(content);
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { readAll(file.path()); })) {
    return failure->getDescription().cStr();
  }
  return "";
}

TEST(HostileRecording, ASoundOneIsRead) {
  Scratch file;
  file.write(soundFile());
  EXPECT_EQ(readAll(file.path()), 3 + 6 * 3 + 1);
}

TEST(HostileRecording, OneThatIsCutOffIsReadUpToThere) {
  Scratch file;
  auto sound = soundFile();
  size_t last = 0;
  for (size_t size = sound.size(); size > 0; size -= std::min<size_t>(size, 7)) {
    auto error = errorOf(file, sound.substr(0, size));
    if (error.empty()) {
      last = size;
    } else {
      EXPECT_EQ(error.compare(0, 11, "TRP-rec-006"), 0) << error;
    }
  }
  EXPECT_LT(last, 400u) << "only a part of the first message is no recording";
}

TEST(HostileRecording, WithAnyBitsTurnedItIsOneErrorOrNone) {
  Scratch file;
  auto sound = soundFile();
  std::mt19937 random(5);
  int errors = 0;
  for (int i = 0; i < 3000; i++) {
    auto spoiled = sound;
    for (uint32_t n = random() % 4 + 1; n > 0; n--)
      spoiled[random() % spoiled.size()] ^= 1 << random() % 8;
    auto error = errorOf(file, spoiled);
    if (error.empty()) continue;
    ++errors;
    EXPECT_EQ(error.compare(0, 11, "TRP-rec-006"), 0) << error;
  }
  EXPECT_GT(errors, 100);
}

TEST(HostileRecording, GarbageIsNone) {
  Scratch file;
  EXPECT_NE(errorOf(file, ""), "");
  EXPECT_NE(errorOf(file, std::string(4096, '\0')), "");
  EXPECT_NE(errorOf(file, std::string(4096, '\xff')), "");
  auto later = soundFile();
  for (size_t i = 0; i < 64; i++) {
    if (later[i] == Recording::CURRENT_VERSION && i % 8 == 0 && i >= 16) later[i] = 77;
  }
  EXPECT_NE(errorOf(file, later), "") << "of another version";
}

TEST(HostileRecording, NoFileIsNone) {
  for (kj::StringPtr path : {"/nowhere", "/tmp", "/dev/zero"}) {
    auto failure = kj::runCatchingExceptions([&]() { readAll(path); });
    EXPECT_TRUE(KJ_ASSERT_NONNULL(failure).getDescription().startsWith("TRP-rec-006"))
        << path.cStr();
  }
}

}  // namespace
}  // namespace troupe
