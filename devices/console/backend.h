#pragma once

#include <kj/common.h>
#include <kj/timer.h>

#include "devices/console/input_queue.h"
#include "devices/console/kept_port.h"
#include "devices/console/open_state.h"
#include "devices/console/output_log.h"
#include "devices/virtio/vital_signs.h"

namespace troupe::console {

// The two directions of one console. A guest's port (virtio queues, the 16550's socket) holds one
// end of it, a Backend the other.
struct Line {
  explicit Line(kj::Timer& timer) : kept(keptHere), output(timer) {}
  // In memory that outlives the process, and this.
  Line(kj::Timer& timer, KeptPort& port)
      : kept(port.state), output(timer, port.output, port.said), input(port.input, port.typed) {}
  KJ_DISALLOW_COPY(Line);

  KeptPortState keptHere;
  KeptPortState& kept;
  OutputLog output;
  InputQueue input;

  // A guest runs that has a driver for this. Once so, it stays so.
  OpenState guest{false};

  // What the guest prints reaches somebody, now or later. A Backend that keeps nothing for those
  // who come late says so when nobody is there.
  OpenState host{true};

  // What is kept, and what lies on the host, is this process's to read and to change, and not still
  // that of one whose place it is to take.
  OpenState ours{true};

  // It is from here on: goes on with what was kept.
  void takeOver() {
    output.takeOver();
    input.takeOver();
    ours.set(true);
  }
};

// How long the last output may wait, when the VM has ended, for readers that take nothing.
constexpr kj::Duration LAST_WORDS_WAIT = 1 * kj::SECONDS;

// Carries bytes between a Line and something on the host for as long as it exists. A host that
// fails costs bytes, never the guest's progress: it is reported once and nothing is thrown.
class Backend {
 public:
  virtual ~Backend() noexcept(false) = default;

  // Another process goes on: takes no more out of the line. Resolves when what it had begun to
  // carry is noted, or when that takes long.
  virtual kj::Promise<void> rest() { return kj::READY_NOW; }

  // Threads of its own show in these signs from now on how they get on.
  virtual void showIn(const virtio::VitalSigns& /*signs*/) {}
};

}  // namespace troupe::console
