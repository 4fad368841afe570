#pragma once

#include <kj/common.h>
#include <kj/exception.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/thread.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/blk_worker.h"
#include "devices/virtio/pulse.h"

namespace troupe::blk {

// One request queue's thread, "blk-qN": serves while there is work, looks for more for a while,
// sleeps.
//
// The methods belong to the main thread. The two threads share the atomics below and two eventfds:
// `wake`, by which main reaches a thread that sleeps (as the kernel does when a request in the
// background has ended), and `events`, by which the thread says that it came to rest or that the
// driver broke the ring.
class BlkQueue {
 public:
  // Returns when the thread is ready to serve: it has made its io_uring and called `confine`, which
  // takes its filter. Throws what either throws. `settings` and the fds are borrowed.
  BlkQueue(const BlkSettings& settings, uint16_t index, int wake, int events,
           kj::Function<void()> confine);
  // Ends the thread, once what it has under way has ended.
  ~BlkQueue() noexcept(false);
  KJ_DISALLOW_COPY(BlkQueue);

  // Only at rest.
  void start(const BlkWork& work);

  // Takes no more requests, and comes to rest once those under way have ended.
  void stop();

  // Whether the thread touches neither ring nor buffers.
  bool atRest() const { return state.load(std::memory_order_acquire) == State::AT_REST; }

  // Has the thread call `chore` between two of its turns, whether it serves or not, while the
  // queue's requests wait. One at a time; `events` is written when it is done.
  void haveDone(kj::Function<void()> chore);
  bool isChoreDone() const { return !hasChore.load(std::memory_order_acquire); }

  // Has the thread show there how it gets on.
  void showIn(uint64_t& word) { pulse.showIn(word); }

  // Whether the driver broke the ring since this was last asked.
  bool takeBroken() { return broken.exchange(false); }

 private:
  // The thread: STARTING → AT_REST or FAILED; main: AT_REST → SERVING → STOPPING; the thread:
  // STOPPING → AT_REST; main: any → ENDED. A store hands over all that was written before it:
  // `startFailure` to main, `work` to the thread, ring and buffers back.
  enum class State : uint8_t { STARTING, FAILED, AT_REST, SERVING, STOPPING, ENDED };

  void run(kj::Function<void()>& confine);
  void report(State next);
  void serveUntilEnded(BlkWorker& worker);
  void serve(BlkWorker& worker);
  void sleep(BlkWorker& worker);
  void comeToRest(BlkWorker& worker);
  void moveTo(State next);
  void doChore();

  const BlkSettings& settings;
  const uint16_t index;
  const int wake;
  const int events;
  BlkWork work{};
  std::atomic<State> state{State::STARTING};
  std::atomic<bool> broken{false};
  virtio::Pulse pulse;  // the thread's
  // The thread's while `hasChore` is set, which hands it over and back.
  kj::Maybe<kj::Function<void()>> chore;
  std::atomic<bool> hasChore{false};
  kj::Maybe<kj::Exception> startFailure;
  kj::Own<kj::Thread> thread;
};

}  // namespace troupe::blk
