#pragma once

#include <kj/common.h>
#include <kj/exception.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/thread.h>

#include <atomic>
#include <cstdint>

#include "devices/net/net_pair.h"
#include "devices/virtio/pulse.h"

namespace troupe::net {

// One queue pair's thread, "net-qN": serves while there is work, looks for more for a while,
// sleeps.
//
// The methods belong to the main thread. The two threads share the atomics below and two eventfds:
// `wake`, by which main reaches a thread that sleeps, and `events`, by which the thread says that
// it came to rest, that the driver broke a ring, or that the host's end is closed.
class NetQueue {
 public:
  // Returns when the thread is ready to serve: it has called `confine`, which takes its filter.
  // Throws what that throws. All are borrowed.
  NetQueue(const NetSettings& settings, Backend& backend, uint16_t index, int wake, int events,
           kj::Function<void()> confine);
  ~NetQueue() noexcept(false);
  KJ_DISALLOW_COPY(NetQueue);

  // Only at rest.
  void start(const PairWork& work);

  // Takes no more frames, and comes to rest.
  void stop();

  // Whether the thread touches neither rings nor buffers.
  bool atRest() const { return state.load(std::memory_order_acquire) == State::AT_REST; }

  // Has the thread show there how it gets on.
  void showIn(uint64_t& word) { pulse.showIn(word); }

  // Whether the driver broke a ring since this was last asked.
  bool takeBroken() { return broken.exchange(false); }
  // Whether the host's end is closed, for good.
  bool isGone() const { return gone.load(); }

 private:
  // The thread: STARTING → AT_REST or FAILED; main: AT_REST → SERVING → STOPPING; the thread:
  // STOPPING → AT_REST; main: any → ENDED. A store hands over all that was written before it:
  // `startFailure` to main, `work` to the thread, rings and buffers back.
  enum class State : uint8_t { STARTING, FAILED, AT_REST, SERVING, STOPPING, ENDED };

  void run(kj::Function<void()>& confine);
  void report(State next);
  void serveUntilEnded();
  void serve();
  void sayWhatHappened();
  void sleep();
  void moveTo(State next);
  bool isServing() const { return state.load(std::memory_order_acquire) == State::SERVING; }

  const NetSettings& settings;
  Backend& backend;
  const uint16_t index;
  const int wake;
  const int events;
  PairWork work{};
  NetPair pair;  // the thread's
  bool saidBroken = false;
  std::atomic<State> state{State::STARTING};
  std::atomic<bool> broken{false};
  std::atomic<bool> gone{false};
  virtio::Pulse pulse;  // the thread's
  kj::Maybe<kj::Exception> startFailure;
  kj::Own<kj::Thread> thread;
};

}  // namespace troupe::net
