#pragma once

#include <kj/async-io.h>

#include "vmm/actors/inspection.h"
#include "vmm/channels/broker_link.h"
#include "vmm/cli/terminal.h"
#include "vmm/company/company.h"
#include "vmm/company/stage.h"
#include "vmm/company/vm_start.h"
#include "vmm/control/control_actor.h"
#include "vmm/control/front_door.h"
#include "vmm/control/vm_model.h"
#include "vmm/files/run_folder.h"
#include "vmm/supervise/serial_keeper.h"
#include "vmm/supervise/supervisor.h"
#include "vmm/vm/event_notes.h"
#include "vmm/vm/guest_course.h"
#include "vmm/vm/verdict.h"
#include "vmm/vm/vm_graph.h"
#include "vmm/vsock/vsock_connector.h"

namespace troupe::realm {
class Instance;
}

namespace troupe {

// A VM whose actors are children of this process: starts them, connects them, watches them, and
// decides how it all ended. Any number of them live in one process. Whatever the broker or a
// device says is taken with care: lengths are bounded, text is escaped, numbers are checked.
class LocalVm final: public RunningVm {
 public:
  // Whoever starts VMs: an instance of a realm, and nobody else.
  class Starter {
    Starter() {}
    friend class realm::Instance;
    friend struct SoleVm;  // of tests of one VM without a realm
  };

  // Starts at once. `stage` outlives it. The disks of `start` are locked.
  LocalVm(Starter, kj::AsyncIoContext& io, Stage& stage, VmStart start);
  KJ_DISALLOW_COPY(LocalVm);

  kj::StringPtr name() const override { return place->name(); }
  kj::Promise<void> onRunning() override { return kj::mv(beginning.promise); }
  kj::Promise<VmEnd> onEnd() override { return kj::mv(life); }
  void stop(kj::String reason) override;
  void shutDown(kj::Duration patience) override;
  kj::Promise<void> powerButton() override;
  kj::Promise<void> pause() override;
  kj::Promise<void> resume() override;
  kj::Promise<void> reset() override;
  kj::Promise<BrokerCounters> counters() override;
  kj::Promise<uint64_t> resizeDisk(kj::StringPtr id, uint64_t bytes) override;
  kj::Promise<void> replaceDevice(kj::StringPtr device, NewBuild build) override;
  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> balloon(
      BalloonRequest::Reader request) override;
  kj::Promise<kj::String> net(kj::StringPtr device, NetWish::Reader wish) override;
  void terminalResized() override;
  void terminalResumed() override;
  void describe(VmStatus::Builder status) override;
  bool isStill() override;
  void inspectJails(VmJails::Builder jails) override;
  void describeGraph(VmGraph::Builder graph) override;
  void describeLoad(VmLoad::Builder load) override;
  EventLog& events() override { return log; }
  kj::Vector<kj::String> notes() override;

 private:
  kj::Promise<VmEnd> live();
  kj::Promise<void> start();
  kj::Promise<void> askBroker();
  kj::Promise<void> letGo();
  kj::Promise<void> explainFailure(kj::Exception&& failure);
  kj::Promise<void> serve();
  kj::Promise<void> pressPowerButton();
  GuestCourse& requireGuest(kj::StringPtr wish);
  void describeBoot(BootFiles::Builder boot);
  void handBootFiles(GuestCourse::RebootRequest& request);
  kj::StringPtr state() const;
  GraphPlan graphPlan();
  void supervise();
  void connectVsock(uint16_t device);
  void noteEnd(const VmEnd& end);
  kj::Promise<void> untilQuietEndIsExplained();
  kj::Promise<void> letEveryoneLeave();
  kj::Promise<void> watchRecorder(size_t index);
  kj::Promise<void> finishRecordings(kj::Vector<Recorder> recorders);
  kj::Promise<void> killStopped();

  template <typename Request>
  kj::Promise<void> step(kj::String description, Request&& request);

  kj::Vector<Actor*> everyActor();
  bool isMoving(const Actor& actor) const;
  kj::Maybe<kj::StringPtr> transitOf(const Actor& actor) const;
  kj::Promise<void> anyDeath();
  bool isSupervised(Actor& actor) const;
  uint16_t diskNamed(kj::StringPtr id);
  uint16_t netNamed(kj::StringPtr name);
  enum class NetEvent { LINK_UP, LINK_DOWN, ANNOUNCE };
  kj::Promise<void> tellNet(uint16_t device, NetEvent what);
  void tellNetAgain(uint16_t device);
  uint16_t deviceNamed(kj::StringPtr name);
  kj::StringPtr jailState() const;
  // What its jails lack because their profiles let it be missing.
  kj::Vector<kj::String> missingLayers();

  // A death is often seen first through what it breaks. This long we wait for its cause to show.
  static constexpr kj::Duration CAUSE_WAIT = 100 * kj::MILLISECONDS;

  kj::AsyncIoContext& io;
  kj::TimePoint startedAt;
  Stage& stage;
  VmPlan plan;
  VmFiles files;
  kj::Vector<kj::String> startNotes;
  kj::Own<VsockNeighbours> neighbours;
  kj::Own<VmPlace> place;
  const Begin begin;
  EventLog log;
  EventNotes notebook{log};
  kj::Maybe<kj::Own<GuestTerminal>> terminal;
  sandbox::VmCgroups groups;
  ActorLauncher launcher = {stage.launcher, groups,
                            stage.profileDir.map([](const kj::String& dir) { return dir.asPtr(); }),
                            stage.hostsMany ? place->name() : nullptr};
  Inspection inspection;
  Company company;
  kj::Maybe<kj::Own<VsockConnector>> vsockConnector;
  kj::Maybe<kj::Own<BrokerLink>> link;
  kj::Maybe<Broker::Client> broker;
  kj::Maybe<kj::Own<Supervisor>> supervisor;  // while the guest runs
  kj::Maybe<kj::Own<SerialKeeper>> serialKeeper;
  kj::Vector<kj::Promise<void>> recordings;  // until each of them ends
  bool running = false;
  bool resizing = false;  // a disk
  kj::PromiseFulfillerPair<void> beginning = kj::newPromiseAndFulfiller<void>();
  bool attested = false;
  kj::Vector<kj::String> openSteps;       // of the start-up, for the message about a hang
  kj::Maybe<kj::Own<GuestCourse>> guest;  // once it runs
  kj::Maybe<kj::String> stopReason;
  bool leaving = false;                                      // its user wants it to end
  kj::TimePoint patienceEnds = kj::origin<kj::TimePoint>();  // with `leaving`
  kj::Promise<void> pressing = nullptr;                      // the power button
  kj::Promise<void> waiting = nullptr;                       // until patienceEnds
  kj::Own<kj::PromiseFulfiller<void>> stopFulfiller;
  kj::Promise<void> stopRequested;
  VmControl control{*this, io.provider->getTimer()};
  kj::Maybe<kj::Own<FrontDoor>> frontDoor;
  kj::Promise<VmEnd> life;
};

}  // namespace troupe
