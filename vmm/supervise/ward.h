#pragma once

#include "vmm/supervise/backoff.h"
#include "vmm/supervise/deaths.h"
#include "vmm/supervise/heartbeat.h"
#include "vmm/supervise/quarantine_file.h"
#include "vmm/supervise/supervisor.h"

namespace troupe {

// What the supervisor knows of one device.
struct Supervisor::Ward {
  Ward(kj::StringPtr vm, uint16_t index, DeviceActor& device, Succession& succession)
      : index(index),
        device(device),
        succession(succession),
        serving([&device]() -> Actor& { return *device.actor; }),
        waiting([&device]() -> Actor& { return *KJ_ASSERT_NONNULL(device.spare).actor; }),
        heartbeat(serving),
        spareHeartbeat(waiting),
        quarantine(vm, device.actor->name(), succession.quarantine()) {}
  KJ_DISALLOW_COPY(Ward);

  // `process`: the broker's number for it.
  void spareIsReady(uint32_t process) {
    spareProcess = process;
    spareHeartbeat.forget();
    isSpareReady = true;
    KJ_ASSERT_NONNULL(device.spare).isReady = true;
  }
  void spareIsNoMore() {
    isSpareReady = false;
    KJ_ASSERT_NONNULL(device.spare).isReady = false;
  }

  // Whatever process is the one that serves, or waits, when it is looked at.
  class Look final: public ProcessLook {
   public:
    explicit Look(kj::Function<Actor&()> which) : which(kj::mv(which)) {}
    kj::Maybe<kj::Duration> cpuTime() override {
      KJ_IF_MAYBE (known, clock) {
        if (known->pid == pid()) return known->time();
      }
      return clock.emplace(pid()).time();
    }
    kj::Maybe<ThreadLook> mainThread() override { return lookAtMainThread(pid()); }
    kj::Vector<ThreadLook> threads() override { return lookAtThreads(pid()); }
    // Of one without a group of its own nobody knows.
    Freeze freeze() override {
      KJ_IF_MAYBE (group, which().group()) {
        if (!group->isFrozen()) return Freeze::NONE;
        return group->isToFreeze() ? Freeze::OF_IT_ALONE : Freeze::OF_OTHERS_TOO;
      }
      return Freeze::NONE;
    }

   private:
    pid_t pid() { return which().child().pid(); }
    kj::Function<Actor&()> which;
    kj::Maybe<CpuClock> clock;
  };

  const uint16_t index;
  DeviceActor& device;
  Succession& succession;
  Look serving;
  Look waiting;

  // The process that serves, or did last.
  uint32_t process = 0;           // the broker's number for it
  uint8_t place = 0;              // protos/device.capnp, attach
  bool isServing = true;          // it has been told to go on, and does
  bool isEarly = false;           // the same, before the one before has ended in full
  bool isTakingOver = false;      // it has been told to go on, and looks at what there is
  bool isHandingOver = false;     // it has been told to let go for good
  bool hasHandedOver = false;     // it did, and ends
  kj::Maybe<kj::StringPtr> hung;  // why it was killed
  Heartbeat heartbeat;

  Deaths deaths;
  bool isBlamed = false;  // the last process that served died of itself

  // The spare, or the process that is to take this one's place by its user's wish.
  uint32_t spareProcess = 0;
  bool isSpareReady = false;
  // Of spares that end by themselves, or hang. Whoever broke into the process that serves can make
  // one look as if it did.
  Backoff spareFailures{{0, 1 * kj::SECONDS, 6, 2 * kj::MINUTES}};
  Heartbeat spareHeartbeat;
  kj::AutoCloseFd spareHelperEnd;  // what its helper is to get, when it has one
  bool isHelperNew = false;        // and has not been attested
  // An exchange that is under way: who is to be told, and what the new process is made of, until it
  // has come to serve.
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> exchange;
  kj::Maybe<kj::Own<Succession::Build>> nextBuild;

  QuarantineFile quarantine;
  // What has ended, until its successor has served for a moment: what it leaves takes time to
  // remove.
  kj::Own<Succession::Build> endedBuild;
  kj::Own<Actor> ended;
  kj::AutoCloseFd endedMounts;
  // The mount namespace of the process that serves, while a spare waits. The end of a process that
  // is the last to hold its own takes until all CPUs have noticed, a millisecond on a busy host.
  kj::AutoCloseFd mounts;
  kj::Promise<void> ending = nullptr;     // of one that has handed over, if it does not by itself
  kj::Promise<void> clearing = nullptr;   // away what an exchange left
  kj::Promise<void> tidying = nullptr;    // the same, when a successor serves
  kj::Promise<void> preparing = nullptr;  // the spare
  kj::Promise<void> helperLife = nullptr;
  kj::Promise<void> helperLook = nullptr;
  kj::Promise<void> life = nullptr;
};

}  // namespace troupe
