#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/control.capnp.h"
#include "vmm/observe/event_log.h"
#include "vmm/words/exit_codes.h"

namespace troupe {

// How a VM that had started came to its end. `message`: what to tell the user, in the form of an
// error with code or as one plain sentence; empty when the guest powered off.
struct VmEnd {
  ExitCode exit;
  kj::String message;
};

// What the broker counted (protos/broker.capnp, Counters).
struct BrokerCounters {
  uint64_t exits;
  uint64_t notifyExits;
  uint64_t deviceCalls;
};

// A virtual machine with all its processes; those that live in this process are begun by an
// Instance (vmm/serve/instance.h) and by nothing else. Destruction ends whatever is left of it: no
// process, no socket and no temporary file stays, and the terminal is as it was.
class RunningVm {
 public:
  virtual ~RunningVm() noexcept(false) = default;

  virtual kj::StringPtr name() const = 0;

  // Resolves when the guest has begun to run; never does if it does not. To be called once.
  virtual kj::Promise<void> onRunning() = 0;

  // Resolves with how it ended, once all its processes are reaped. Throws a user error when the
  // guest never came to run. To be called once; the promise does not outlive this object.
  virtual kj::Promise<VmEnd> onEnd() = 0;

  // Ends it at once, for the reason given ("stopped by SIGTERM").
  virtual void stop(kj::String reason) = 0;

  // Presses the power button, and ends it when the guest has not powered off within `patience`. It
  // is resumed for that if it is paused, and no reset starts it anew.
  virtual void shutDown(kj::Duration patience) = 0;

  virtual kj::Promise<void> powerButton() = 0;

  // Resolve when it is so. Throw a user error while the guest does not run yet, or not any more.
  virtual kj::Promise<void> pause() = 0;
  virtual kj::Promise<void> resume() = 0;
  virtual kj::Promise<void> reset() = 0;

  virtual kj::Promise<BrokerCounters> counters() = 0;

  // Makes a disk larger and tells the guest: to `bytes` bytes, 0 for what its block device has now.
  // Resolves with what it has then. Throws a user error.
  virtual kj::Promise<uint64_t> resizeDisk(kj::StringPtr id, uint64_t bytes) = 0;

  // Another process takes the place of the one of this device: of another program, or with another
  // profile, where these are given. Resolves when it serves. Throws a user error; then the device
  // goes on as before.
  struct NewBuild {
    kj::String binary;            // an absolute path; empty: that of before
    kj::String profilePath;       // for messages
    kj::Array<kj::byte> profile;  // its text; empty: that of before
    bool mayBeLooser;             // the profile, than the one in force
  };
  virtual kj::Promise<void> replaceDevice(kj::StringPtr device, NewBuild build) = 0;

  // Does what is asked of its balloon and resolves with a BalloonStatus. Throws a user error.
  virtual kj::Promise<kj::Own<capnp::MallocMessageBuilder>> balloon(
      BalloonRequest::Reader request) = 0;

  // Does what is asked of a network device ("net0"; empty: the only one) and resolves with which it
  // was. Throws a user error.
  virtual kj::Promise<kj::String> net(kj::StringPtr device, NetWish::Reader wish) = 0;

  // Of the terminal behind its console, if it has one there.
  virtual void terminalResized() = 0;
  virtual void terminalResumed() = 0;

  virtual void describe(VmStatus::Builder status) = 0;

  // Whether none of its devices is just being given another process. Whoever is not what it will be
  // is left out of what follows.
  virtual bool isStill() = 0;

  // Looks at its actors' jails from outside, as they are at this moment.
  virtual void inspectJails(VmJails::Builder jails) = 0;

  // Looks at what its processes hold, and compares that with what they were given.
  virtual void describeGraph(VmGraph::Builder graph) = 0;

  // What its processes use and its queues have done, as of now.
  virtual void describeLoad(VmLoad::Builder load) = 0;

  // What has happened to it; lives as long as this object.
  virtual EventLog& events() = 0;

  // What its user should know as it begins: where the console is to be found, a jail that is off.
  virtual kj::Vector<kj::String> notes() = 0;
};

}  // namespace troupe
