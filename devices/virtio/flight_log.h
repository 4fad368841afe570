#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/function.h>

#include <atomic>
#include <cstdint>

#include "protos/recording.capnp.h"

namespace troupe::virtio {

// What a host answered to one call, for a device that is replayed.
struct HostAnswer {
  HostCall::Kind kind;
  uint64_t offset;
  int64_t result;
  bool allocating;
  kj::ArrayPtr<const kj::byte> data;  // what was read, `result` bytes
};

// The answers of a recording, as whoever replays it lays them out: one Head, `count` Entries in
// ascending order of (queue, number, ordinal), and the bytes they name. The file comes from a
// stranger: everything is checked where it is used.
struct AnswerTable {
  struct Head {
    uint64_t count;
    uint64_t reached;  // of the recording's events, those before this one are going on or over
  };
  struct Entry {
    uint16_t queue;
    uint8_t allocating;
    uint8_t kind;
    uint32_t ordinal;  // of the call among those for its chain
    uint64_t number;   // of the chain
    uint64_t event;    // of the recording
    uint64_t offset;
    int64_t result;
    uint64_t dataOffset;  // from the beginning of the table
    uint64_t dataBytes;
  };
  static_assert(sizeof(Entry) == 56, "two processes agree on it");
};

// The flight recorder's end inside a device process: events are built in memory that outlives the
// process, and somebody else carries them to a file. No system call, and nobody is waited for but
// another thread of this process that adds an event. When the memory is full the recording is over
// and the device goes on. Any thread.
//
// With answers the process is being replayed: then calls to the host are answered from there, and
// what it does is recorded just so, for comparison.
class FlightLog {
 public:
  // The beginning of the memory. The rest of its first page is not used.
  struct Head {
    std::atomic<uint64_t> end;     // of the events that are complete, from the memory's beginning
    std::atomic<uint32_t> isFull;  // there will be no more of them
    std::atomic<uint32_t> reserved;
    std::atomic<uint64_t> carried;  // so far, by whoever writes the file
  };
  static constexpr uint64_t FIRST_EVENT = 4096;
  static constexpr uint64_t LEAST_BYTES = 1 << 20;
  static constexpr size_t MAX_QUEUES = 31;

  // Goes on behind what another process of the same device has recorded. Both outlive this.
  FlightLog(kj::ArrayPtr<kj::byte> memory, kj::ArrayPtr<const kj::byte> answers);
  KJ_DISALLOW_COPY(FlightLog);

  // Adds the event that `fill` completes; it takes at most `words` beyond what every event takes.
  void add(size_t words, kj::FunctionParam<void(FlightEvent::Builder)> fill);

  // How many chains of a queue were recorded: the queue's to count, through all its activations.
  uint64_t& chainsOf(uint16_t queue) { return chains[queue]; }

  bool isReplaying() const { return answers.size() > 0; }
  // None: nothing is known of such a call, or with REACHED, the replay has not come so far.
  enum class When { ANY, REACHED };
  kj::Maybe<HostAnswer> answerTo(uint16_t queue, uint64_t number, uint32_t ordinal,
                                 When when = When::ANY) const;

 private:
  Head& head() { return *reinterpret_cast<Head*>(memory.begin()); }

  kj::ArrayPtr<kj::byte> memory;
  kj::ArrayPtr<const kj::byte> answers;
  uint64_t end;
  bool isFull;
  uint64_t chains[MAX_QUEUES] = {};
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

}  // namespace troupe::virtio
