#pragma once

#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include "broker/device_slot.h"
#include "broker/fd_table.h"
#include "broker/machine.h"
#include "broker/virtio_pci_function.h"
#include "protos/broker.capnp.h"

namespace troupe::broker {

// What the broker's process gives its one machine.
struct BrokerGround {
  kj::AsyncIoContext& io;
  Mailbox& mailbox;
  FdTable& fds;
  // Makes the VM, or throws why there is none; called once, by create().
  kj::Function<KvmVm&()> vm;
  kj::Maybe<int> serial;  // the 16550's socket, if the process was given one
  // Guest RAM, and the same opened for reading alone.
  int ram;
  int ramReadOnly;
  kj::Array<kj::AutoCloseFd> hostMemory;  // closed by create(), which maps it
  // Narrows the process to the filter "ready" or "run", or the calling thread to "thread:vcpu".
  kj::Function<void(kj::StringPtr stage)> enterJail;
};

// The VM as `troupe` sees it: interface Broker in protos/broker.capnp. `troupe` may send all calls
// at once; each waits for those before it, and fails when one of them did.
class BrokerActor final: public Broker::Server {
 public:
  explicit BrokerActor(BrokerGround ground);

  kj::Promise<void> create(CreateContext context) override;
  kj::Promise<void> addDevice(AddDeviceContext context) override;
  kj::Promise<void> load(LoadContext context) override;
  kj::Promise<void> prepare(PrepareContext context) override;
  kj::Promise<void> run(RunContext context) override;
  kj::Promise<void> waitForEnd(WaitForEndContext context) override;
  kj::Promise<void> hostEvent(HostEventContext context) override;
  kj::Promise<void> powerButton(PowerButtonContext context) override;
  kj::Promise<void> counters(CountersContext context) override;
  kj::Promise<void> deviceReport(DeviceReportContext context) override;
  kj::Promise<void> pause(PauseContext context) override;
  kj::Promise<void> resume(ResumeContext context) override;
  kj::Promise<void> reboot(RebootContext context) override;
  kj::Promise<void> nextLoss(NextLossContext context) override;
  kj::Promise<void> replaceDevice(ReplaceDeviceContext context) override;
  kj::Promise<void> resumeDevice(ResumeDeviceContext context) override;
  kj::Promise<void> leaveDown(LeaveDownContext context) override;
  kj::Promise<void> handOver(HandOverContext context) override;

 private:
  // Of a process, to be told to `troupe`.
  struct Loss {
    uint16_t device;
    uint32_t process;  // of the device, counted from 0
    kj::String why;
  };
  struct PluggedDevice {
    kj::Maybe<kj::Own<DeviceSlot>> slot;
    kj::Maybe<kj::Own<VirtioPciFunction>> function;
    RamGrant ram;
    kj::Maybe<RamDeputy> deputy;  // of one that may not write RAM
  };

  // Open from when they come until they are loaded.
  struct TakenFiles {
    kj::AutoCloseFd kernel;
    kj::Maybe<kj::AutoCloseFd> initrd, deviceTree;
  };

  kj::Promise<void> step(kj::Promise<void> work);
  kj::Promise<void> afterEarlierSteps();
  Machine& requireMachine();
  kj::Promise<DeviceDescription> connectDevice(uint16_t index, AddDeviceParams::Reader params,
                                               int pipe);
  DeviceSlot& slotOf(uint16_t index);
  void noteLoss(Loss loss);
  kj::Promise<void> attachDevice(PluggedDevice& device);
  RamGrant grant(MemoryGrant::Reader memory);
  kj::Promise<TakenFiles> takeBootFiles(BootFiles::Reader files);
  BootState loadNow(const TakenFiles& taken, BootFiles::Reader files);
  kj::Promise<void> resetDevices();

  BrokerGround ground;
  kj::Maybe<kj::Own<Machine>> machine;
  kj::Vector<kj::Own<PluggedDevice>> devices;
  kj::Promise<void> slotTurn = kj::READY_NOW;  // when the next device may take its slot
  kj::Promise<void> earlierSteps = kj::READY_NOW;
  bool isRunning = false;  // run() has been called
  bool isRebooting = false;
  kj::Vector<Loss> losses;  // each process once: there are as many as `troupe` has made
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> lossAwaited;
};

}  // namespace troupe::broker
