#pragma once

#include <kj/async-io.h>
#include <kj/io.h>

#include "sandbox/launcher.h"
#include "sandbox/shared_memory.h"
#include "vmm/actors/child_log.h"
#include "vmm/record/replay_run.h"
#include "vmm/record/replayer.capnp.h"

namespace troupe {

// The memories and eventfds that a replayer and its device share, without a size at first.
struct ReplayMemories {
  ReplayMemories();
  sandbox::SharedMemory flight, answers, ram;
  struct Queue {
    kj::AutoCloseFd kick;
    kj::AutoCloseFd call;
  };
  kj::Array<Queue> queues;
};

// Two ends of a channel between processes.
struct ReplayEnds {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};
ReplayEnds makeReplaySockets();
ReplayEnds makeReplayLog();

enum class Show { NOTHING, AS_TEXT, AS_JSON };  // of what is recorded, line by line

// `troupe` to its replayer: gives it what it asks for once and within bounds, and starts the
// device.
class ReplayHostActor final: public ReplayHost::Server {
 public:
  // `pipe`: the device's end of the one that the replayer has. All of it outlives this.
  // `ended` is told the outcome, or the error that ends it all.
  ReplayHostActor(kj::AsyncIoContext& io, sandbox::Launcher& launcher, ReplayMemories& memories,
                  kj::AutoCloseFd pipe, int devices, kj::StringPtr path, Show form,
                  kj::Own<kj::PromiseFulfiller<ReplayReport>> ended);
  ~ReplayHostActor() noexcept(false);

  kj::Promise<void> show(ShowContext context) override;
  kj::Promise<void> prepare(PrepareContext context) override;
  kj::Promise<void> launch(LaunchContext context) override;
  kj::Promise<void> look(LookContext context) override;
  kj::Promise<void> finish(FinishContext context) override;
  kj::Promise<void> refuse(RefuseContext context) override;

 private:
  struct Device;
  kj::String deviceState();

  kj::AsyncIoContext& io;
  sandbox::Launcher& launcher;
  ReplayMemories& memories;
  kj::AutoCloseFd pipe;
  int devices;
  kj::String path;
  const Show form;
  kj::Own<kj::PromiseFulfiller<ReplayReport>> ended;
  kj::Own<capnp::MallocMessageBuilder> plan;  // null before prepare()
  kj::Own<Device> device;                     // null before launch()
  bool wasResting = false;
};

}  // namespace troupe
