#include "broker/device_slot.h"

#include <kj/debug.h>

#include <cstring>

#include "broker/msix.h"
#include "broker/refusal.h"

namespace troupe::broker {

DeviceSlot::DeviceSlot(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name, Loss loss,
                       DeviceLost lost)
    : io(io), index(index), name(kj::heapString(name)), loss(loss), lost(kj::mv(lost)) {}

DeviceSlot::~DeviceSlot() noexcept(false) {}

void DeviceSlot::connect(kj::AutoCloseFd pipe) {
  remote =
      kj::heap<RemoteDevice>(io, index, name, kj::mv(pipe),
                             [this](uint16_t, kj::StringPtr, kj::StringPtr why) { noteLoss(why); });
}

RemoteDevice& DeviceSlot::process() {
  return *KJ_REQUIRE_NONNULL(remote, "the device has no process", name);
}

kj::Promise<DeviceDescription> DeviceSlot::describe(kj::AutoCloseFd pipe) {
  connect(kj::mv(pipe));
  return process().describe().then([this](DeviceDescription&& first) {
    DeviceDescription copy{
        first.deviceType, first.features, kj::heapArray<uint16_t>(first.queueSizes),
        kj::heapArray<kj::byte>(first.config), kj::heapArray<kj::byte>(first.configWriteMask)};
    description = kj::mv(first);
    return copy;
  });
}

kj::Promise<void> DeviceSlot::attach(RamGrant granted, kj::ArrayPtr<const QueueFds> queues,
                                     VirtioDeviceClient& newClient,
                                     kj::Maybe<RamDeputy&> newDeputy) {
  ram = kj::mv(granted);
  queueFds = queues;
  client = newClient;
  deputy = newDeputy;
  return process().attach(ram, queueFds, *this, deputy);
}

void DeviceSlot::noteLoss(kj::StringPtr why) {
  state = Process::AWAY;
  lost(index, name, why);
}

void DeviceSlot::letGo() {
  state = Process::AWAY;
  callsBefore = callCount();
  remote = nullptr;
  KJ_IF_MAYBE (returning, deputy) {
    returning->suspend();
  }
}

kj::Promise<void> DeviceSlot::replace(kj::AutoCloseFd pipe) {
  KJ_REQUIRE(loss == Loss::REPLACED && client != nullptr && remote == nullptr,
             "this device is not to be replaced now", name);
  ++successors;
  connect(kj::mv(pipe));
  auto& successor = process();
  return successor.describe()
      .then([this, &successor](DeviceDescription&& found) {
        requireSame(found);
        successorConfig = kj::mv(found.config);
        return successor.attach(ram, queueFds, *this, deputy);
      })
      .then([this]() { state = Process::ATTACHED; });
}

void DeviceSlot::requireSame(const DeviceDescription& successor) {
  auto& known = KJ_ASSERT_NONNULL(description);
  auto demand = [this](bool holds, kj::StringPtr what) {
    if (!holds) refuse("TRP-pci-004: device ", name, " came back as another: its ", what);
  };
  demand(successor.deviceType == known.deviceType, "type differs");
  demand((known.features & ~successor.features) == 0, "driver was offered features it lacks");
  demand(successor.queueSizes == known.queueSizes, "queues differ");
  demand(successor.configWriteMask == known.configWriteMask, "configuration differs");
}

void DeviceSlot::resume(bool ownFault) {
  KJ_REQUIRE(state == Process::ATTACHED, "replace() comes first", name);
  state = Process::SERVING;
  adoptConfig();
  tellWritten();
  KJ_IF_MAYBE (held, driver) {
    process().activate(held->features, kj::heapArray<QueueSettings>(held->queues),
                       Activation{activations, /*resumed=*/true, ownFault});
    signalCalls();
  }
  if (resetting) {
    resetting = false;  // nothing of the driver's is touched by a process that was never activated
    KJ_IF_MAYBE (returning, deputy) {
      returning->deactivate();
    }
    KJ_ASSERT_NONNULL(client).resetDone();
  }
}

// What the successor says of itself is newer: a disk may have grown meanwhile. What drivers may
// write is theirs.
void DeviceSlot::adoptConfig() {
  auto& known = KJ_ASSERT_NONNULL(description);
  auto differs = [&](size_t i) {
    return known.configWriteMask[i] == 0 && known.config[i] != successorConfig[i];
  };
  for (size_t i = 0; i < known.config.size(); i++) {
    if (!differs(i)) continue;
    size_t begin = i;
    while (i < known.config.size() && differs(i))
      i++;
    configChanged(begin, successorConfig.slice(begin, i));
  }
}

void DeviceSlot::tellWritten() {
  for (size_t i = 0; i < MAX_CONFIG_SIZE; i++) {
    if (!written[i]) continue;
    size_t begin = i;
    while (i < MAX_CONFIG_SIZE && written[i])
      i++;
    process().writeConfig(begin, kj::arrayPtr(writtenBytes + begin, i - begin));
  }
}

// The process before may have died between the used index and the interrupt for it; one that was
// not due is nothing to a driver.
void DeviceSlot::signalCalls() {
  KJ_IF_MAYBE (held, driver) {
    for (auto& queue : held->queues)
      signalEventFd(queueFds[queue.index].call);
  }
}

kj::Promise<void> DeviceSlot::hostEvent(HostEvent::Reader event) {
  if (state != Process::SERVING) return KJ_EXCEPTION(DISCONNECTED, "the device is being replaced");
  return process().hostEvent(event);
}

kj::Promise<kj::Own<capnp::MallocMessageBuilder>> DeviceSlot::report() {
  if (state != Process::SERVING) return KJ_EXCEPTION(DISCONNECTED, "the device is being replaced");
  return process().report();
}

void DeviceSlot::activate(uint64_t features, kj::Array<QueueSettings> queues) {
  ++activations;
  if (state == Process::SERVING) {
    process().activate(features, kj::heapArray<QueueSettings>(queues), Activation{activations});
  }
  driver = Driver{features, kj::mv(queues)};
}

void DeviceSlot::reset() {
  driver = nullptr;
  resetting = true;
  if (state == Process::SERVING || loss == Loss::FINAL) process().reset();
}

void DeviceSlot::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  for (size_t i = 0; i < data.size() && offset + i < MAX_CONFIG_SIZE; i++) {
    written.set(offset + i);
    writtenBytes[offset + i] = data[i];
  }
  if (state == Process::SERVING) process().writeConfig(offset, data);
}

uint64_t DeviceSlot::callCount() const {
  KJ_IF_MAYBE (device, remote) {
    return callsBefore + (*device)->callCount();
  }
  return callsBefore;
}

bool DeviceSlot::configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  if (!KJ_ASSERT_NONNULL(client).configChanged(offset, data)) return false;
  auto& known = KJ_ASSERT_NONNULL(description).config;
  memcpy(known.begin() + offset, data.begin(), data.size());
  return true;
}

void DeviceSlot::needsReset() {
  KJ_ASSERT_NONNULL(client).needsReset();
}

void DeviceSlot::resetDone() {
  if (state != Process::SERVING && loss == Loss::REPLACED) return;  // resume() says so
  resetting = false;
  KJ_ASSERT_NONNULL(client).resetDone();
}

}  // namespace troupe::broker
