#pragma once

#include <capnp/message.h>
#include <kj/async.h>
#include <kj/memory.h>
#include <kj/string.h>

#include <cstdint>
#include <deque>

#include "protos/control.capnp.h"

namespace troupe {

// What has happened to one VM: a list that only grows, of which the last MOST are kept. Adding
// costs no more for any number of readers, and waits for none: each comes for what it has not read
// yet.
class EventLog {
 public:
  static constexpr size_t MOST = 512;
  static constexpr size_t LONGEST_TEXT = 400;  // of any text in an event, which is whoever's words

  EventLog() = default;
  KJ_DISALLOW_COPY(EventLog);

  // Adds one, with a number and the time, which `write` says the rest of.
  template <typename Write>
  void add(Write&& write) {
    auto message = kj::heap<capnp::MallocMessageBuilder>(FIRST_WORDS);
    auto event = message->initRoot<VmEvent>();
    write(event);
    keep(kj::mv(message), event);
  }

  // Nothing comes after this.
  void end();
  bool hasEnded() const { return ended; }

  // The number of the last event; 0 before the first.
  uint64_t last() const { return lastSequence; }

  // The number of the first that is kept.
  uint64_t first() const { return lastSequence - kept.size() + 1; }

  // One that is kept: first() <= sequence <= last().
  VmEvent::Reader at(uint64_t sequence);

  // Resolves when there is one after `sequence`, or when none will come.
  kj::Promise<void> untilAfter(uint64_t sequence);

  // Who reads is counted, so that the VM's end can be told before the VM goes.
  class Reader {
   public:
    explicit Reader(EventLog& log) : log(log) { log.readers++; }
    ~Reader() noexcept(false) { log.left(); }
    KJ_DISALLOW_COPY(Reader);

   private:
    EventLog& log;
  };
  uint32_t readerCount() const { return readers; }
  kj::Promise<void> untilNobodyReads();

 private:
  static constexpr kj::uint FIRST_WORDS = 64;

  void keep(kj::Own<capnp::MallocMessageBuilder> message, VmEvent::Builder event);
  void left();

  // Many wait for the same.
  struct Signal {
    Signal();
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
    kj::ForkedPromise<void> promise;
  };
  static kj::Promise<void> waitFor(kj::Maybe<kj::Own<Signal>>& signal);
  static void give(kj::Maybe<kj::Own<Signal>>& signal);

  std::deque<kj::Own<capnp::MallocMessageBuilder>> kept;
  uint64_t lastSequence = 0;
  bool ended = false;
  uint32_t readers = 0;
  kj::Maybe<kj::Own<Signal>> news;
  kj::Maybe<kj::Own<Signal>> goodbye;
};

}  // namespace troupe
