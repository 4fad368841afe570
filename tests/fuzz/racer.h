#pragma once

#include <kj/common.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace troupe::fuzz {

// Another vCPU: writes two values in turn to words of guest memory, as fast as it can, so that a
// device that looks twice sees both. Costs nothing while it has no word.
class Racer {
 public:
  Racer();
  ~Racer();
  KJ_DISALLOW_COPY(Racer);

  // From now on `size` bytes at `host`, at most 8, are in turn what they were and `value`. The
  // latest MOST_WORDS of them.
  void race(kj::byte* host, size_t size, uint64_t value);
  // Returns when it writes no more.
  void stop();
  // How often it has written, in all.
  uint64_t writes() const { return writeCount.load(std::memory_order_relaxed); }

  static constexpr size_t MOST_WORDS = 4;

 private:
  struct Word {
    kj::byte* host;
    size_t size;
    uint64_t values[2];
  };
  void run();

  std::mutex mutex;  // of the words, held while they are written
  std::condition_variable changed;
  Word words[MOST_WORDS];
  size_t wordCount = 0;
  size_t next = 0;
  bool over = false;
  std::atomic<uint32_t> waiting{0};  // who wants the lock
  std::atomic<uint64_t> writeCount{0};
  std::thread thread;
};

}  // namespace troupe::fuzz
