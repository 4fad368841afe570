#include "broker/run_gate.h"

namespace troupe::broker {

void RunGate::release(Hold why) {
  // Under the mutex, so that no thread looks before and sleeps after it.
  std::lock_guard<std::mutex> lock(mutex);
  holds.fetch_and(~uint32_t(why));
  changed.notify_all();
}

void RunGate::dismiss() {
  std::lock_guard<std::mutex> lock(mutex);
  dismissed = true;
  changed.notify_all();
}

void RunGate::arrive() {
  bool isAwaited;
  {
    std::lock_guard<std::mutex> lock(mutex);
    isAwaited = ++here >= awaited;
    changed.notify_all();
  }
  if (isAwaited) mailbox.post([this]() { tellWaiting(); });
}

bool RunGate::pass() {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&]() { return dismissed || !isClosed(); });
  --here;
  return !dismissed;
}

void RunGate::awaitArrivals(uint32_t count) {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&]() { return here >= count; });
}

kj::Promise<void> RunGate::whenArrived(uint32_t count) {
  auto pair = kj::newPromiseAndFulfiller<void>();
  waiting.add(Waiting{count, kj::mv(pair.fulfiller)});
  bool areHere;
  {
    std::lock_guard<std::mutex> lock(mutex);
    awaited = kj::min(awaited, count);
    areHere = here >= count;
  }
  // By way of the mailbox as well: what they posted on their way here comes first.
  if (areHere) mailbox.post([this]() { tellWaiting(); });
  return kj::mv(pair.promise);
}

void RunGate::tellWaiting() {
  uint32_t count;
  {
    std::lock_guard<std::mutex> lock(mutex);
    count = here;
  }
  kj::Vector<Waiting> later;
  uint32_t least = UINT32_MAX;
  for (auto& one : waiting) {
    if (count >= one.count) {
      one.fulfiller->fulfill();
    } else {
      least = kj::min(least, one.count);
      later.add(kj::mv(one));
    }
  }
  waiting = kj::mv(later);
  std::lock_guard<std::mutex> lock(mutex);
  awaited = least;
}

}  // namespace troupe::broker
