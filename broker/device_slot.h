#pragma once

#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/string.h>
#include <kj/vector.h>

#include <bitset>
#include <cstdint>

#include "broker/remote_device.h"
#include "broker/virtio_device.h"

namespace troupe::broker {

// Told of each process of a device that is lost: `process` counts them from 0. `why`: as
// DeviceLost has it.
using ProcessLost =
    kj::Function<void(uint16_t index, uint32_t process, kj::StringPtr name, kj::StringPtr why)>;

// One device as its transport sees it, whichever process plays it: what has to be said to a
// successor is remembered here, since its driver shall notice nothing. Main loop only.
//
// A successor is prepared before it serves: after the death of the process before, or beside it.
//
//   the process before dies        letGo() ─ prepare() ─ resume()
//   the same, with one prepared    prepare() … letGo() ─ resume()
//   it lives and is to go          prepare() ─ handOver() … resume()
//   nobody is to follow for now    leaveDown() … the driver resets ─ prepare() ─ resume()
//
// While a device that can be replaced is away, what the driver asks for waits: a reset ends only
// when there is a successor, for until then nobody knows whether the dead process's requests still
// write to the driver's buffers. A device that cannot be replaced is as RemoteDevice has it.
class DeviceSlot final: public VirtioDevice {
 public:
  // Whether `troupe` starts another process when this one is lost.
  enum class Loss { FINAL, REPLACED };

  // `name` and `index` are for messages.
  DeviceSlot(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name, Loss loss,
             ProcessLost lost);
  ~DeviceSlot() noexcept(false);
  KJ_DISALLOW_COPY(DeviceSlot);

  // The first process, at the other end of `pipe`: what it is, and then what it gets (see
  // RemoteDevice). `client` outlives every later turn of the loop; so does what `queues` points to.
  kj::Promise<DeviceDescription> describe(kj::AutoCloseFd pipe);
  kj::Promise<void> attach(RamGrant ram, kj::ArrayPtr<const QueueFds> queues,
                           VirtioDeviceClient& client, kj::Maybe<RamDeputy&> deputy = nullptr);

  // Gives up the process that serves or served. Its pipe is closed when this returns.
  void letGo();

  // Gives up the process that was prepared, if there is one. Its pipe is closed when this returns.
  void dropPrepared();

  // The process at the other end of `pipe` is to take the place of the one there is. Resolves when
  // it has answered ready; the driver knows nothing of it yet. `place`: see freePlace(). Throws
  // TRP-pci-004 when it is not the device its driver knows, and as RemoteDevice does.
  kj::Promise<void> prepare(kj::AutoCloseFd pipe);

  // Which of its two places for a pipe (fds "device" and "successor") the next one is to have.
  kj::StringPtr freePlace() const;

  // After letGo(), once the process before has ended, the prepared one goes on where it stopped.
  // Resolves when it serves, which may take long; until then the device is away. Throws when it is
  // lost instead. `ownFault`: the one before died of itself.
  kj::Promise<void> resume(bool ownFault);

  // The process that serves lets go of its queues, and is given up. Throws when it is lost instead.
  kj::Promise<void> handOver();

  // Gives up the process, and tells the driver that only a reset helps. Resolves when the driver
  // asks for one, or begins.
  kj::Promise<void> leaveDown();

  // Resolves when the device has dealt with `event`, which is told to its successor when it dies of
  // it, or amid it. While it is left down this throws; so it does when more wait than an honest
  // `troupe` has under way. Else as RemoteDevice has it.
  kj::Promise<void> hostEvent(HostEvent::Reader event);

  // As RemoteDevice has it; while the device is away it throws.
  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> report();

  void activate(uint64_t features, kj::Array<QueueSettings> queues) override;
  void reset() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;

  // How many processes were prepared to take their place here so far.
  uint32_t successorCount() const { return successors; }

  // RPCs sent to its processes so far.
  uint64_t callCount() const;

 private:
  static constexpr size_t MAX_CONFIG_SIZE = 4096;
  class Process;
  enum class State { SERVING, AWAY, DOWN };
  struct Driver {
    uint64_t features;
    kj::Array<QueueSettings> queues;
  };
  using Event = kj::Own<capnp::MallocMessageBuilder>;

  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data);
  void needsReset();
  void resetDone();
  void noteLoss(Process& process, kj::StringPtr why);

  RemoteDevice& current();
  void requireSame(const DeviceDescription& successor);
  void putInPlace(bool ownFault, kj::ArrayPtr<const kj::byte> config);
  void adoptConfig(kj::ArrayPtr<const kj::byte> newer);
  void tellWritten();
  void signalCalls();
  void wake();
  kj::Promise<void> tell(Event event, uint tries);
  kj::Promise<void> untilServing();

  kj::AsyncIoContext& io;
  const uint16_t index;
  const kj::String name;
  const Loss loss;
  ProcessLost lost;
  kj::Maybe<kj::Own<Process>> serving;   // also after its loss, until letGo()
  kj::Maybe<kj::Own<Process>> prepared;  // or being prepared
  State state = State::SERVING;

  // What the first process was, with the configuration as it has become.
  kj::Maybe<DeviceDescription> description;
  RamGrant ram;
  kj::ArrayPtr<const QueueFds> queueFds;
  kj::Maybe<VirtioDeviceClient&> client;
  kj::Maybe<RamDeputy&> deputy;

  kj::Maybe<Driver> driver;  // between DRIVER_OK and a reset
  uint32_t successors = 0;
  uint64_t activations = 0;
  bool resetting = false;                                       // for the driver
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> awaitsDriver;  // while it is left down
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> awaitService;
  std::bitset<MAX_CONFIG_SIZE> written;  // of the configuration, by drivers
  kj::byte writtenBytes[MAX_CONFIG_SIZE];
  uint64_t callsBefore = 0;  // to processes that are gone
};

}  // namespace troupe::broker
