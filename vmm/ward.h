#pragma once

#include "vmm/heartbeat.h"
#include "vmm/quarantine_file.h"
#include "vmm/supervisor.h"

namespace troupe {

// What the supervisor knows of one device.
struct Supervisor::Ward {
  Ward(kj::StringPtr vm, uint16_t index, DeviceActor& device, Succession& succession)
      : index(index),
        device(device),
        succession(succession),
        heartbeat([this]() { return lookAtThreads(this->device.actor->child().pid()); }),
        spareHeartbeat([this]() {
          return lookAtThreads(KJ_ASSERT_NONNULL(this->device.spare).actor->child().pid());
        }),
        quarantine(vm, device.actor->name(), succession.quarantine()) {}
  KJ_DISALLOW_COPY(Ward);

  // `process`: the broker's number for it.
  void spareIsReady(uint32_t process) {
    spareProcess = process;
    spareHeartbeat.forget();
    isSpareReady = true;
    KJ_ASSERT_NONNULL(device.spare).isReady = true;
  }

  const uint16_t index;
  DeviceActor& device;
  Succession& succession;

  // The process that serves, or did last.
  uint32_t process = 0;           // the broker's number for it
  uint8_t place = 0;              // protos/device.capnp, attach
  bool isServing = true;          // it has been told to go on, and does
  bool isTakingOver = false;      // it has been told to go on, and looks at what there is
  bool isHandingOver = false;     // it has been told to let go for good
  bool hasHandedOver = false;     // it did, and ends
  kj::Maybe<kj::StringPtr> hung;  // why it was killed
  Heartbeat heartbeat;

  // Deaths.
  kj::Vector<kj::TimePoint> deaths;     // within the time its profile speaks of
  kj::Vector<kj::TimePoint> ownDeaths;  // of its own fault, the last few
  uint32_t inARow = 0;                  // of its own fault
  bool isBlamed = false;                // the last process that served died of itself

  // The spare, or the process that is to take this one's place by its user's wish.
  uint32_t spareProcess = 0;
  bool isSpareReady = false;
  uint32_t spareFailures = 0;  // in a row
  Heartbeat spareHeartbeat;
  kj::AutoCloseFd spareHelperEnd;  // what its helper is to get, when it has one
  // An exchange that is under way: who is to be told, and what the new process is made of, until it
  // has come to serve.
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> exchange;
  kj::Maybe<kj::Own<Succession::Build>> nextBuild;

  QuarantineFile quarantine;
  // What has ended, until its successor serves: what it leaves takes time to remove.
  kj::Own<Succession::Build> endedBuild;
  kj::Own<Actor> ended;
  kj::Promise<void> ending = nullptr;     // of one that has handed over, if it does not by itself
  kj::Promise<void> clearing = nullptr;   // away what an exchange left
  kj::Promise<void> preparing = nullptr;  // the spare
  kj::Promise<void> helperLife = nullptr;
  kj::Promise<void> helperLook = nullptr;
  kj::Promise<void> life = nullptr;
};

}  // namespace troupe
