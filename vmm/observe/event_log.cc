#include "vmm/observe/event_log.h"

#include <kj/debug.h>

#include "devices/virtio/spin.h"

namespace troupe {

EventLog::Signal::Signal() : promise(nullptr) {
  auto pair = kj::newPromiseAndFulfiller<void>();
  fulfiller = kj::mv(pair.fulfiller);
  promise = pair.promise.fork();
}

kj::Promise<void> EventLog::waitFor(kj::Maybe<kj::Own<Signal>>& signal) {
  KJ_IF_MAYBE (one, signal) {
    return (*one)->promise.addBranch();
  }
  return signal.emplace(kj::heap<Signal>())->promise.addBranch();
}

void EventLog::give(kj::Maybe<kj::Own<Signal>>& signal) {
  KJ_IF_MAYBE (one, signal) {
    (*one)->fulfiller->fulfill();
    signal = nullptr;
  }
}

void EventLog::keep(kj::Own<capnp::MallocMessageBuilder> message, VmEvent::Builder event) {
  if (ended) return;
  event.setSequence(++lastSequence);
  event.setMonotonicNs(virtio::monotonicNs());
  kept.push_back(kj::mv(message));
  if (kept.size() > MOST) kept.pop_front();
  give(news);
}

void EventLog::end() {
  ended = true;
  give(news);
}

VmEvent::Reader EventLog::at(uint64_t sequence) {
  KJ_REQUIRE(sequence >= first() && sequence <= last(), "no such event is kept", sequence);
  return kept[sequence - first()]->getRoot<VmEvent>().asReader();
}

kj::Promise<void> EventLog::untilAfter(uint64_t sequence) {
  if (ended || lastSequence > sequence) return kj::READY_NOW;
  return waitFor(news).then([this, sequence]() { return untilAfter(sequence); });
}

void EventLog::left() {
  if (--readers == 0) give(goodbye);
}

kj::Promise<void> EventLog::untilNobodyReads() {
  if (readers == 0) return kj::READY_NOW;
  return waitFor(goodbye);
}

}  // namespace troupe
