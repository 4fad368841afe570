#include "tests/fuzz/racer.h"

#include <kj/debug.h>
#include <signal.h>

#include <cstring>
#include <functional>

namespace troupe::fuzz {
namespace {

constexpr int ROUNDS_PER_LOOK = 64;
// After so many looks, some ten microseconds, it lets others have its CPU if they wait for one:
// whom it races with does, where there are few.
constexpr int LOOKS_PER_TURN = 64;

// Not torn where a guest's store would not be.
void store(kj::byte* host, size_t size, uint64_t value) {
  bool isAligned = reinterpret_cast<uintptr_t>(host) % size == 0;
  if (isAligned && size == 8) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(host), value, __ATOMIC_RELAXED);
  } else if (isAligned && size == 4) {
    __atomic_store_n(reinterpret_cast<uint32_t*>(host), uint32_t(value), __ATOMIC_RELAXED);
  } else if (isAligned && size == 2) {
    __atomic_store_n(reinterpret_cast<uint16_t*>(host), uint16_t(value), __ATOMIC_RELAXED);
  } else {
    for (size_t i = 0; i < size; i++)
      __atomic_store_n(host + i, kj::byte(value >> 8 * i), __ATOMIC_RELAXED);
  }
}

// The signals of this process are its main thread's: whoever else took one would keep it waiting.
std::thread withoutSignals(std::function<void()> run) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(kj::mv(run));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

Racer::Racer() : thread(withoutSignals([this] { run(); })) {}

Racer::~Racer() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    over = true;
    wordCount = 0;
  }
  changed.notify_one();
  thread.join();
}

void Racer::race(kj::byte* host, size_t size, uint64_t value) {
  KJ_REQUIRE(size >= 1 && size <= 8);
  ++waiting;
  {
    std::lock_guard<std::mutex> lock(mutex);
    --waiting;
    Word& word = words[next++ % MOST_WORDS];
    word = Word{host, size, {0, value}};
    memcpy(&word.values[0], host, size);
    wordCount = kj::min(wordCount + 1, MOST_WORDS);
  }
  changed.notify_one();
}

void Racer::stop() {
  ++waiting;
  std::lock_guard<std::mutex> lock(mutex);
  --waiting;
  wordCount = 0;
  next = 0;
}

void Racer::run() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!over) {
    changed.wait(lock, [this] { return over || wordCount > 0; });
    int looks = 0;
    while (wordCount > 0 && waiting.load(std::memory_order_relaxed) == 0) {
      if (++looks % LOOKS_PER_TURN == 0) std::this_thread::yield();
      for (int round = 0; round < ROUNDS_PER_LOOK; round++) {
        for (size_t i = 0; i < wordCount; i++)
          store(words[i].host, words[i].size, words[i].values[round % 2]);
      }
      writeCount.fetch_add(ROUNDS_PER_LOOK * wordCount, std::memory_order_relaxed);
    }
    if (wordCount == 0) continue;
    // Whoever waits gets the lock before we have it again.
    lock.unlock();
    while (waiting.load(std::memory_order_relaxed) > 0)
      std::this_thread::yield();
    lock.lock();
  }
}

}  // namespace troupe::fuzz
