#pragma once

#include <kj/async.h>
#include <kj/refcount.h>
#include <kj/timer.h>

namespace troupe::realm {

// Asks somebody who may never answer, and never read a question: RPC keeps each question until that
// one has gone. So one that is no longer waited for still counts, and only so many are put.
class PatientAsker final: public kj::Refcounted, private kj::TaskSet::ErrorHandler {
 public:
  // `most` are open at a time.
  PatientAsker(kj::Timer& timer, uint32_t most) : timer(timer), most(most), questions(*this) {}
  KJ_DISALLOW_COPY(PatientAsker);

  // To be asked before a question is put.
  bool hasRoom() const { return open < most; }

  // Resolves with the answer; with none when there is none within `patience`, or a failure.
  template <typename T>
  kj::Promise<kj::Maybe<T>> ask(kj::Promise<T> answer, kj::Duration patience) {
    ++open;
    auto told = kj::newPromiseAndFulfiller<kj::Maybe<T>>();
    auto said =
        answer.then([](T&& one) { return kj::Maybe<T>(kj::mv(one)); }).catch_([](kj::Exception&&) {
          return kj::Maybe<T>(nullptr);
        });
    questions.add(said.then([this, to = kj::mv(told.fulfiller)](kj::Maybe<T>&& one) mutable {
      --open;
      to->fulfill(kj::mv(one));
    }));
    auto late = timer.afterDelay(patience).then([]() { return kj::Maybe<T>(nullptr); });
    return told.promise.exclusiveJoin(kj::mv(late)).catch_([](kj::Exception&&) {
      return kj::Maybe<T>(nullptr);  // there is nobody to ask any more
    });
  }

 private:
  void taskFailed(kj::Exception&&) override {}

  kj::Timer& timer;
  const uint32_t most;
  uint32_t open = 0;
  kj::TaskSet questions;
};

}  // namespace troupe::realm
