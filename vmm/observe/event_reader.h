#pragma once

#include "protos/control.capnp.h"
#include "vmm/observe/event_log.h"

namespace troupe {

// Serves the interface EventReader of protos/control.capnp: one place in a log that outlives it.
class EventReaderActor final: public EventReader::Server {
 public:
  static constexpr uint32_t MOST_AT_ONCE = 64;

  EventReaderActor(EventLog& log, uint64_t after) : log(log), presence(log), position(after) {}

  kj::Promise<void> next(NextContext context) override;

 private:
  void answer(NextContext& context);

  EventLog& log;
  EventLog::Reader presence;
  uint64_t position;  // the number of the last event that was read, or lost
  bool isAsking = false;
};

}  // namespace troupe
