#pragma once

#include <kj/async.h>
#include <kj/common.h>
#include <kj/vector.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "broker/bus.h"

namespace troupe::broker {

// Why the guest may not run. Each is set and taken away by itself.
enum class Hold : uint32_t {
  START = 1,      // it has not been let go yet
  PAUSED = 2,     // by the user
  REBOOTING = 4,  // until the machine is as after power-on
  ENDED = 8,      // it came to an end, and nobody has started it anew
};

// Where vCPU threads wait while the guest may not run. A thread asks isClosed() before each entry
// to the guest, which is one load (in this order with hold() for all threads); only when it is does
// it come here.
class RunGate {
 public:
  explicit RunGate(Mailbox& mailbox) : mailbox(mailbox) {}
  KJ_DISALLOW_COPY(RunGate);

  bool isClosed() const { return holds.load() != 0; }
  bool isHeld(Hold why) const { return (holds.load() & uint32_t(why)) != 0; }

  // Any thread. Threads that are inside of the guest are to be kicked after hold(), by the caller.
  void hold(Hold why) { holds.fetch_or(uint32_t(why)); }
  void release(Hold why);

  // Makes every pass() return false from now on. Any thread.
  void dismiss();

  // A thread that is here, and waits or never will run.
  void arrive();

  // Waits until the gate is open. False: the thread is to end. To be called after arrive(), which
  // it takes back.
  bool pass();

  // Main thread: blocks until `count` threads are here.
  void awaitArrivals(uint32_t count);

  // Main thread: resolves as soon as `count` threads are here, and after everything that these
  // threads had posted to the mailbox before.
  kj::Promise<void> whenArrived(uint32_t count);

 private:
  struct Waiting {
    uint32_t count;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

  void tellWaiting();

  Mailbox& mailbox;
  std::atomic<uint32_t> holds{uint32_t(Hold::START)};
  std::mutex mutex;  // a mutex the thread sanitizer knows, unlike KJ's
  std::condition_variable changed;
  uint32_t here = 0;
  uint32_t awaited = UINT32_MAX;  // the smallest count somebody waits for
  bool dismissed = false;
  kj::Vector<Waiting> waiting;  // main thread only
};

}  // namespace troupe::broker
