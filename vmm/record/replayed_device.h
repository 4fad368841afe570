#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/vector.h>

#include "protos/device.capnp.h"
#include "vmm/record/flight_index.h"
#include "vmm/record/replay_ram.h"
#include "vmm/record/replayer.capnp.h"

namespace troupe {

// What a replay shares with the device, all of it borrowed: memories that are mapped already and
// have their sizes by now, as many eventfds as a device can have queues.
struct ReplayRoom {
  struct Queue {
    int kick;
    int call;
  };
  kj::ArrayPtr<const kj::byte> flight;
  uint64_t* reached;  // virtio::AnswerTable::Head.reached
  RamPlace ram;
  kj::ArrayPtr<const Queue> queues;
};

// A device process, with this process as its broker, and a recorder that tells what it does. What
// it says is a stranger's, as always.
class ReplayedDevice {
 public:
  // `stream`: this end of its pipe. `host` sees its process. `readOnly`: it may only read RAM.
  ReplayedDevice(kj::AsyncIoContext& io, kj::Own<kj::AsyncCapabilityStream> stream,
                 ReplayHost::Client host, const ReplayRoom& room, bool readOnly);
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

  // Looks at what it does until `done()`. False: that did not come and will not, since the device
  // has ended or waits for others; or it did nothing at all for a minute.
  bool waitUntil(kj::Function<bool()> done);

 private:
  struct Unanswered;  // what it has asked its broker to give back, by queue
  class Host;
  size_t refresh();
  bool comesToNothing();
  template <typename T>
  T await(kj::Promise<T>&& promise);

  kj::AsyncIoContext& io;
  ReplayHost::Client host;
  const ReplayRoom& room;
  const bool readOnly;
  uint64_t taken;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> rpc;
  Device::Client client;
  kj::Own<Unanswered> unanswered;
  kj::Maybe<kj::Promise<void>> reporting;
  kj::Own<ReplayRam> ram;
  kj::Vector<kj::Maybe<ReplayDriver>> drivers;  // by queue
  EventList list;
  FlightIndex known;
};

}  // namespace troupe
