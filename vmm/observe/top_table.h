#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "protos/control.capnp.h"

namespace troupe {

// What one process of a VM did between two looks at it.
struct ProcessRates {
  double cpuPercent;  // of one CPU
  double requestsPerSecond;
  double bytesPerSecond;  // both ways
  uint64_t inFlight;
  kj::Maybe<double> meanWaitUs;  // of the requests that were timed; none: there were none
  kj::Maybe<double> p99WaitUs;   // at most this
};

// `earlier`: none when the process was not seen before, or is another by now. Numbers that run
// backwards, as those of a hostile device may, make no rates.
ProcessRates ratesOf(ProcessLoad::Reader now, kj::Maybe<ProcessLoad::Reader> earlier,
                     uint64_t elapsedNs);

// The process of the same name in `load`: the same one, or one whose place it took.
kj::Maybe<ProcessLoad::Reader> find(VmLoad::Reader load, ProcessLoad::Reader process);

// What happened between two looks, as a table for people or as a line of JSON. Both are copies
// whose words are safe to show.
kj::String topTable(VmLoad::Reader now, VmLoad::Reader earlier);
kj::String topLine(VmLoad::Reader now, VmLoad::Reader earlier);

}  // namespace troupe
