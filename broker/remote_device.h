#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/io.h>
#include <kj/memory.h>
#include <kj/string.h>

#include <cstdint>

#include "broker/ram_deputy.h"
#include "broker/ram_layout.h"
#include "broker/virtio_device.h"
#include "protos/device.capnp.h"

namespace troupe::broker {

// An fd of guest RAM, borrowed. Only through a writable one can the memory be changed.
struct RamFile {
  enum Access { READ_ONLY, WRITABLE };
  int fd;
  Access access;
};

// What of guest RAM one device gets: nothing, or the `pieces` of a file.
struct RamGrant {
  kj::Maybe<RamFile> file;
  kj::Array<RamRegion> pieces;
};

// Told once when a device can no longer be worked with: its pipe broke, or it let its reset
// deadline pass. `why` is one sentence fragment: "closed its pipe".
using DeviceLost = kj::Function<void(uint16_t index, kj::StringPtr name, kj::StringPtr why)>;

// Which activation a device is to begin, or to go on with (protos/device.capnp).
struct Activation {
  uint64_t number = 1;
  bool resumed = false;
  bool ownFault = false;
};

// One device process, reached over its pipe. Everything it says is checked; calls to it are bounded
// in number whatever the guest and the device do, and never waited for. Main loop only.
//
// After a loss every method still works and does nothing; a reset then completes at once, so that
// no driver hangs on a device that is gone.
class RemoteDevice final {
 public:
  // `pipe`: a connected unix stream socket, non-blocking and close-on-exec. `index` counts devices
  // in the order of Broker.addDevice; both it and `name` are for messages.
  RemoteDevice(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name, kj::AutoCloseFd pipe,
               DeviceLost lost);
  // The same over any stream that carries fds.
  RemoteDevice(kj::Timer& timer, uint16_t index, kj::StringPtr name,
               kj::Own<kj::AsyncCapabilityStream> pipe, DeviceLost lost);
  ~RemoteDevice() noexcept(false);
  KJ_DISALLOW_COPY(RemoteDevice);

  // Asks the device what it is, once. Throws TRP-pci-002 when the answer breaks a rule of
  // protos/device.capnp, TRP-pci-003 when the device is lost.
  kj::Promise<DeviceDescription> describe();

  // Hands over RAM and the eventfds (one entry per queue of the description), once, after
  // describe(). Resolves when the device has answered ready; throws TRP-pci-003 when it fails.
  // `client` is told what the device says from now on; `deputy` does in RAM what a device asks for
  // that may not write there. Both outlive every later turn of the loop. `place`: as device.capnp
  // has it.
  kj::Promise<void> attach(const RamGrant& ram, kj::ArrayPtr<const QueueFds> queues,
                           VirtioDeviceClient& client, kj::Maybe<RamDeputy&> deputy = nullptr,
                           uint8_t place = 0);

  // From here on the device may have `deputy` do something in RAM: one that serves.
  void appoint(RamDeputy& deputy);

  // Has a device that serves let go of its queues for whoever takes its place, in the time that a
  // reset has; throws when it is lost over that.
  kj::Promise<void> handOver();

  // Has a device begin where the process before it ended. Resolves with its configuration space,
  // of which nothing was checked, whenever it is done. One that refuses is lost.
  kj::Promise<kj::Array<kj::byte>> takeOver();

  // Passes `event` on; resolves when the device has dealt with it, and throws what it answers. Of
  // events that come faster than the device takes them the last counts: the others throw.
  kj::Promise<void> hostEvent(HostEvent::Reader event);

  // What the device tells of itself, checked; throws when it breaks a rule of protos/device.capnp,
  // or when more of these calls are under way than an honest client makes.
  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> report();

  // As VirtioDevice has them.
  void activate(uint64_t features, kj::Array<QueueSettings> queues, Activation which = {});
  void reset();
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data);

  // RPCs sent to the device so far.
  uint64_t callCount() const;

 private:
  class Session;
  kj::Own<Session> session;
};

}  // namespace troupe::broker
