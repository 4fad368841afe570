#pragma once

#include <kj/array.h>
#include <kj/string.h>
#include <sys/types.h>

#include "protos/control.capnp.h"
#include "sandbox/attest.h"
#include "sandbox/fd_view.h"
#include "vmm/actors/actor.h"

namespace troupe {

// One process of a VM as it is seen from outside.
struct GraphSubject {
  kj::StringPtr name;
  kj::StringPtr kind;
  pid_t pid;
  const sandbox::Profile* profile;
  kj::StringPtr stage;
  kj::String memory;
  kj::ArrayPtr<const HandedObject> handed;
  kj::Array<sandbox::SeenFd> fds;
  kj::Array<sandbox::HostMapping> hostMemory = nullptr;
};

// One that holds, just now, something else than it will, and is not looked at.
struct GraphTransit {
  kj::StringPtr name;
  kj::StringPtr kind;
  kj::StringPtr profile;
  kj::StringPtr stage;  // GraphProcess.stage: why
};

// What `troupe` gave out besides what it handed to each process at its start.
struct GraphPlan {
  struct Device {
    kj::StringPtr name;
    kj::StringPtr brokerObject;                   // the broker's end of its pipe
    kj::StringPtr spareObject = kj::StringPtr();  // and of that of who waits to take its place
    bool isMoving = false;  // its process is in transit: the pipe may be that of the one before
  };
  kj::Array<Device> devices;        // in the order of their slots
  kj::Array<kj::String> bootFiles;  // objects: kernel and initrd
  bool isBooting;                   // the broker may have them open
};

// Fills in `graph`'s processes, edges and extras: every fd of every process, whom it leads to, and
// whether that is what `troupe` gave out. Two processes that share what the plan does not have them
// share, and an fd that leads to somebody nobody knows, are extras.
// `jails`: differences that attestation found, which are extras too.
void compareGraph(kj::ArrayPtr<const GraphSubject> subjects,
                  kj::ArrayPtr<const GraphTransit> transits, const GraphPlan& plan,
                  kj::ArrayPtr<const kj::String> jails, VmGraph::Builder graph);

}  // namespace troupe
