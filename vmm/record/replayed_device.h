#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/vector.h>

#include "protos/device.capnp.h"
#include "sandbox/launcher.h"
#include "vmm/child_log.h"
#include "vmm/record/flight_index.h"
#include "vmm/record/replay_ram.h"

namespace troupe {

// What a device of one kind is replayed with: its jail, and its configuration with everything of
// the host's left out.
struct ReplayStart {
  const sandbox::Profile& profile;
  kj::Own<capnp::MallocMessageBuilder> config;
  kj::Vector<kj::AutoCloseFd> files = {};  // own what `fds` name
  kj::Vector<sandbox::HandedFd> fds = {};
};

// Throws TRP-rec-007 for a kind that cannot be replayed, kj exceptions for a configuration that
// makes no sense. `events`: of the process that is to be replayed.
ReplayStart replayStart(Recording::Reader head, const EventList& events, const FlightIndex& index);

// What the executable of the devices is started as for such a kind.
kj::StringPtr replayedProgram(kj::StringPtr kind);

// A device process in its jail, with this process as its broker, and a recorder that tells what it
// does. What it says is a stranger's, as always.
class ReplayedDevice {
 public:
  // `executable` is that of the devices. Waits until it runs.
  ReplayedDevice(kj::AsyncIoContext& io, int executable, kj::StringPtr program, ReplayStart start,
                 kj::ArrayPtr<const kj::byte> answers, uint64_t recordingBytes);
  ~ReplayedDevice() noexcept(false);
  KJ_DISALLOW_COPY(ReplayedDevice);

  // Each waits for the answer, and throws what the device does.
  void attach(capnp::List<RamRegion>::Reader regions, size_t queues);
  void activate(FlightEvent::Reader event);
  void reset();
  void writeConfig(uint32_t offset, capnp::Data::Reader data);
  void hostEvent(HostEvent::Reader event);
  void make(TakenChain::Reader chain);
  // Nobody waits for the report: it may wait for the driver.
  void askForReport();

  // The recording has come to event `next`: what the host did before is to be met now.
  void reach(uint64_t next);
  // Answers the oldest request for giving back, which may have yet to come. False as waitUntil().
  bool giveBack(uint16_t queue, uint64_t bytes);

  // What it has done so far.
  const EventList& events() const { return list; }
  const FlightIndex& index() const { return known; }

  // Looks at what it does until `done()`. False: that did not come, and the device has ended or did
  // nothing at all for a minute.
  bool waitUntil(kj::Function<bool()> done);
  // Why not, for people.
  kj::String state();

 private:
  struct Unanswered;  // what it has asked its broker to give back, by queue
  struct Events {
    kj::AutoCloseFd kick;
    kj::AutoCloseFd call;
  };
  class Host;
  size_t refresh();
  template <typename T>
  T await(kj::Promise<T>&& promise);

  kj::AsyncIoContext& io;
  ReplayStart start;
  kj::AutoCloseFd memory;
  uint64_t memoryBytes;
  kj::byte* flight = nullptr;
  uint64_t* reached = nullptr;  // AnswerTable::Head.reached
  uint64_t taken;
  sandbox::Launcher launcher;
  kj::Own<sandbox::Child> process;
  kj::Own<ChildLog> words;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> rpc;
  Device::Client client;
  kj::Own<Unanswered> unanswered;
  kj::Maybe<kj::Promise<void>> reporting;
  kj::Maybe<int> status;
  kj::Promise<void> watching;
  kj::Own<ReplayRam> ram;
  kj::Vector<Events> eventFds;
  kj::Vector<kj::Maybe<ReplayDriver>> drivers;  // by queue
  EventList list;
  FlightIndex known;
};

}  // namespace troupe
