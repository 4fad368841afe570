#pragma once

#include <stdint.h>

#include "guest/payload/pci.h"
#include "guest/payload/virtio_ring.h"

// One modern virtio-pci device (virtio 1.2, §4.1) as a driver sees it.
namespace payload {

constexpr uint64_t FEATURE_INDIRECT_DESC = 1ull << 28;
constexpr uint64_t FEATURE_EVENT_IDX = 1ull << 29;
constexpr uint64_t FEATURE_VERSION_1 = 1ull << 32;

// How a driver learns of used buffers. The words of the command line choose it.
enum class Completion { POLL, INTERRUPT };
enum class Delivery { MSIX, INTX };

// What every driver is told of the machine.
struct DriverContext {
  PciBus& bus;
  Delivery delivery;
  uint64_t ringFeatures;   // those of FEATURE_INDIRECT_DESC and FEATURE_EVENT_IDX to ask for
  uint64_t timeoutCycles;  // of the TSC: a device that takes longer has failed
};

class VirtioDevice {
 public:
  // Finds the register blocks. False when the function is not a modern virtio device or a block is
  // out of reach.
  bool attach(const DriverContext& context, const PciFunction& function);

  // The device type of a function (§5); 0 when it is no modern virtio device.
  static unsigned typeOf(const PciFunction& function);

  // Resets, then negotiates `wanted`, the ring features and VERSION_1, as far as they are offered
  // (§3.1.1). The device type's own bits are in features(). False when the device refuses.
  bool negotiate(uint64_t wanted);
  uint64_t offered() const { return offeredFeatures; }
  bool has(uint64_t feature) const { return (acceptedFeatures & feature) == feature; }

  // Makes queue `index` with at most `maxSize` descriptors. With Completion::POLL it gets no
  // vector.
  bool addQueue(uint16_t index, uint16_t maxSize, Completion completion, Ring& ring);

  // DRIVER_OK. False when the device does not keep it.
  bool start();

  // Publishes what was offered on `ring` and notifies the device if it asks for that.
  void publish(Ring& ring, uint16_t queue);

  // The same, and sleeps until the device has interrupted and `ring` has a used chain; false after
  // the time-out.
  bool publishForInterrupt(Ring& ring, uint16_t queue);

  // Waits until one of the `count` rings has a used chain; false after the time-out. INTERRUPT
  // sleeps.
  bool await(Ring* rings, unsigned count, Completion completion);
  bool await(Ring& ring, Completion completion) { return await(&ring, 1, completion); }

  template <typename T>
  T config(unsigned offset) const {
    return readRegister<T>(deviceBlock + offset);
  }

  template <typename T>
  void setConfig(unsigned offset, T value) {
    writeRegister<T>(deviceBlock + offset, value);
  }

  uint8_t status() const;

  static constexpr unsigned MAX_QUEUES = 16;

  // Notifications written, and device interrupts that ended a sleep.
  uint64_t notifications = 0;
  uint64_t interrupts = 0;

 private:
  const DriverContext* context = nullptr;
  uint64_t commonBlock = 0;
  uint64_t notifyBlock = 0;
  uint32_t notifyMultiplier = 0;
  uint64_t isrBlock = 0;
  uint64_t deviceBlock = 0;
  uint64_t notifyAddress[MAX_QUEUES] = {};
  uint64_t offeredFeatures = 0;
  uint64_t acceptedFeatures = 0;

  bool sleepUntilUsed(Ring* rings, unsigned count);
  Wake sleepOnce();
};

}  // namespace payload
