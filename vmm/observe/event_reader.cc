#include "vmm/observe/event_reader.h"

#include <kj/debug.h>

namespace troupe {

kj::Promise<void> EventReaderActor::next(NextContext context) {
  KJ_REQUIRE(!isAsking, "one call at a time");
  bool wait = context.getParams().getWait();
  if (!wait) {
    answer(context);
    return kj::READY_NOW;
  }
  // Who leaves while it waits is gone at once, and not with the next event.
  context.allowCancellation();
  isAsking = true;
  return log.untilAfter(position)
      .attach(kj::defer([this]() { isAsking = false; }))
      .then([this, context]() mutable { answer(context); });
}

void EventReaderActor::answer(NextContext& context) {
  auto results = context.getResults();
  if (position > log.last()) position = log.last();  // of another VM's log, or a guess
  uint64_t lost = log.first() - 1 - kj::min(position, log.first() - 1);
  position += lost;
  results.setLost(lost);
  uint64_t count = kj::min(log.last() - position, uint64_t(MOST_AT_ONCE));
  auto events = results.initEvents(count);
  for (kj::uint i = 0; i < count; i++)
    events.setWithCaveats(i, log.at(++position));
  results.setIsEnd(log.hasEnded() && position == log.last());
}

}  // namespace troupe
