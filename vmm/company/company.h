#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/vector.h>

#include "vmm/actors/actor.h"
#include "vmm/actors/programs.h"
#include "vmm/company/succession.h"
#include "vmm/company/vm_files.h"
#include "vmm/observe/counters_view.h"
#include "vmm/policy/actor_profiles.h"

namespace troupe {

// The process behind a device, which is started anew with it: what it and the dead one had said to
// each other nobody knows.
struct DeviceHelper {
  size_t index;  // in Company::helpers
  // Starts another one with its end of their connection.
  kj::Function<kj::Own<Actor>(kj::AutoCloseFd end)> launch;
};

// A device on PCI: its process, and the broker's end of the pipe to it until the broker has it.
struct DeviceActor {
  kj::Own<Succession::Build> build;  // of one that is replaced
  kj::Own<Actor> actor;
  kj::AutoCloseFd brokerEnd;
  kj::String brokerObject;                              // which socket that is (sandbox/fd_view.h)
  kj::AutoCloseFd witness;                              // see Succession
  kj::Maybe<kj::Own<Succession>> succession = nullptr;  // of one that is replaced when it ends
  kj::AutoCloseFd line;  // on which its process calls `troupe`, until that is taken
  kj::Maybe<Succession::Member> spare = nullptr;  // that waits to take its place
  uint32_t restarts = 0;
  bool isDown = false;       // until the driver resets it
  bool mayGiveBack = false;  // pages of the guest's RAM, by the broker
  kj::Maybe<kj::Own<CountersView>> counters = nullptr;
  kj::Maybe<DeviceHelper> helper = nullptr;
};

// What carries the recording of one device to its file, for as long as `control` is open. Nobody
// depends on it: when it ends, so does the recording.
struct Recorder {
  kj::Own<Actor> actor;
  kj::AutoCloseFd control;
};

// A device that has ended and is not replaced any more, and why.
struct AbandonedDevice {
  uint16_t index;
  kj::String why;
};

// The processes of one VM. Launching starts them all at once; each then goes on by itself.
struct Company {
  kj::Own<Actor> broker;
  kj::Own<Actor> serial;
  kj::Function<kj::Own<Actor>()> launchSerial;  // another one with the same files
  uint32_t serialRestarts = 0;
  kj::Vector<DeviceActor> devices;      // in the order of their PCI slots
  kj::Vector<kj::Own<Actor>> helpers;   // behind devices, without a word to the broker
  kj::Vector<Recorder> recorders;       // of devices that are recorded
  kj::Maybe<uint16_t> balloon;          // which of them it is
  kj::Maybe<uint16_t> vsock;            // likewise
  uint16_t firstDisk = 0;               // the disks stand side by side
  uint16_t firstNet = 0;                // and so do the network devices
  kj::Maybe<uint16_t> terminalConsole;  // the device whose terminal is the user's
  kj::AutoCloseFd brokerPipe;           // `troupe`'s end, until it is taken
  kj::Maybe<AbandonedDevice> abandoned;

  // All of them, the broker first.
  template <typename Function>
  void forEach(Function&& function) {
    if (broker.get() != nullptr) function(*broker);
    if (serial.get() != nullptr) function(*serial);
    for (auto& device : devices) {
      if (device.actor.get() != nullptr) function(*device.actor);
      KJ_IF_MAYBE (spare, device.spare) {
        function(*spare->actor);
      }
    }
    for (auto& helper : helpers) {
      if (helper.get() != nullptr) function(*helper);
    }
    for (auto& recorder : recorders)
      function(*recorder.actor);
  }
};

// The controllers of control groups that the limits of this VM's actors need, the front end's
// included.
uint32_t controllersOf(const VmPlan& plan, const ActorProfiles& profiles);

// What it is given outlives the company: helpers are started anew while it plays.
Company launchCompany(kj::AsyncIoContext& io, ActorLauncher& launcher, const VmPlan& plan,
                      const VmFiles& files, const Programs& programs,
                      const ActorProfiles& profiles);

// The jailed end of the VM's control socket.
kj::Own<Actor> launchFront(kj::AsyncIoContext& io, ActorLauncher& launcher,
                           const Programs& programs, const ActorProfiles& profiles, int pipe);

}  // namespace troupe
