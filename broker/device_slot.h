#pragma once

#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <kj/string.h>

#include <bitset>
#include <cstdint>

#include "broker/remote_device.h"
#include "broker/virtio_device.h"

namespace troupe::broker {

// One device as its transport sees it, whichever process plays it: what has to be said to a
// successor is remembered here, since its driver shall notice nothing. Main loop only.
//
// While a device that can be replaced is away, what the driver asks for waits: a reset ends only
// when there is a successor, for until then nobody knows whether the dead process's requests still
// write to the driver's buffers. A device that cannot be replaced is as RemoteDevice has it.
class DeviceSlot final: public VirtioDevice, private VirtioDeviceClient {
 public:
  // Whether `troupe` starts another process when this one is lost.
  enum class Loss { FINAL, REPLACED };

  // `name` and `index` are for messages. `lost` is told of each process that is lost.
  DeviceSlot(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name, Loss loss,
             DeviceLost lost);
  ~DeviceSlot() noexcept(false);
  KJ_DISALLOW_COPY(DeviceSlot);

  // The first process, at the other end of `pipe`: what it is, and then what it gets (see
  // RemoteDevice). `client` outlives every later turn of the loop; so does what `queues` points to.
  kj::Promise<DeviceDescription> describe(kj::AutoCloseFd pipe);
  kj::Promise<void> attach(RamGrant ram, kj::ArrayPtr<const QueueFds> queues,
                           VirtioDeviceClient& client, kj::Maybe<RamDeputy&> deputy = nullptr);

  // Gives up the process there is, if it is still there. Its pipe is closed when this returns.
  void letGo();

  // After letGo(), the process at the other end of `pipe` takes its place. Resolves when it has
  // answered ready; the driver knows nothing of it before resume(). Throws TRP-pci-004 when it is
  // not the device its driver knows, and as RemoteDevice does.
  kj::Promise<void> replace(kj::AutoCloseFd pipe);

  // The successor goes on where the process before stopped. `ownFault`: that one died of itself.
  void resume(bool ownFault);

  // As RemoteDevice has them; while it is away they throw.
  kj::Promise<void> hostEvent(HostEvent::Reader event);
  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> report();

  void activate(uint64_t features, kj::Array<QueueSettings> queues) override;
  void reset() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;

  // How many processes have taken their place here so far.
  uint32_t successorCount() const { return successors; }

  // RPCs sent to its processes so far.
  uint64_t callCount() const;

 private:
  static constexpr size_t MAX_CONFIG_SIZE = 4096;
  enum class Process {
    SERVING,
    AWAY,      // lost; its successor, if there is to be one, has not answered ready
    ATTACHED,  // a successor, until resume()
  };
  struct Driver {
    uint64_t features;
    kj::Array<QueueSettings> queues;
  };

  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  void needsReset() override;
  void resetDone() override;

  void connect(kj::AutoCloseFd pipe);
  void noteLoss(kj::StringPtr why);
  void requireSame(const DeviceDescription& successor);
  void adoptConfig();
  void tellWritten();
  void signalCalls();
  RemoteDevice& process();

  kj::AsyncIoContext& io;
  const uint16_t index;
  const kj::String name;
  const Loss loss;
  DeviceLost lost;
  kj::Maybe<kj::Own<RemoteDevice>> remote;
  Process state = Process::SERVING;

  // What the first process was, with the configuration as it has become.
  kj::Maybe<DeviceDescription> description;
  kj::Array<kj::byte> successorConfig;
  RamGrant ram;
  kj::ArrayPtr<const QueueFds> queueFds;
  kj::Maybe<VirtioDeviceClient&> client;
  kj::Maybe<RamDeputy&> deputy;

  kj::Maybe<Driver> driver;  // between DRIVER_OK and a reset
  uint32_t successors = 0;
  uint64_t activations = 0;
  bool resetting = false;
  std::bitset<MAX_CONFIG_SIZE> written;  // of the configuration, by drivers
  kj::byte writtenBytes[MAX_CONFIG_SIZE];
  uint64_t callsBefore = 0;  // to processes that are gone
};

}  // namespace troupe::broker
