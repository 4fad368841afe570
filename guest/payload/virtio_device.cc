#include "guest/payload/virtio_device.h"

#include "guest/payload/machine.h"

namespace payload {
namespace {

constexpr uint16_t VIRTIO_VENDOR = 0x1af4;
constexpr uint16_t FIRST_MODERN_DEVICE = 0x1040;  // plus the device type (§4.1.2)
constexpr uint16_t LAST_MODERN_DEVICE = 0x107f;

constexpr uint8_t CAPABILITY_VENDOR = 0x09;
// cfg_type of virtio_pci_cap (§4.1.4)
constexpr uint8_t COMMON_CFG = 1;
constexpr uint8_t NOTIFY_CFG = 2;
constexpr uint8_t ISR_CFG = 3;
constexpr uint8_t DEVICE_CFG = 4;

// virtio_pci_common_cfg (§4.1.4.3)
constexpr unsigned DEVICE_FEATURE_SELECT = 0x00;
constexpr unsigned DEVICE_FEATURE = 0x04;
constexpr unsigned DRIVER_FEATURE_SELECT = 0x08;
constexpr unsigned DRIVER_FEATURE = 0x0c;
constexpr unsigned CONFIG_MSIX_VECTOR = 0x10;
constexpr unsigned DEVICE_STATUS = 0x14;
constexpr unsigned QUEUE_SELECT = 0x16;
constexpr unsigned QUEUE_SIZE = 0x18;
constexpr unsigned QUEUE_MSIX_VECTOR = 0x1a;
constexpr unsigned QUEUE_ENABLE = 0x1c;
constexpr unsigned QUEUE_NOTIFY_OFF = 0x1e;
constexpr unsigned QUEUE_DESC = 0x20;
constexpr unsigned QUEUE_DRIVER = 0x28;
constexpr unsigned QUEUE_DEVICE = 0x30;

constexpr uint16_t NO_VECTOR = 0xffff;

// §2.1
constexpr uint8_t ACKNOWLEDGE = 1;
constexpr uint8_t DRIVER = 2;
constexpr uint8_t DRIVER_OK = 4;
constexpr uint8_t FEATURES_OK = 8;

// Fields of 64 bits are written as two of 32 (§4.1.3.1).
void write64(uint64_t address, uint64_t value) {
  writeRegister<uint32_t>(address, value);
  writeRegister<uint32_t>(address + 4, value >> 32);
}

bool anyUsed(const Ring* rings, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    if (rings[i].hasUsed()) {
      return true;
    }
  }
  return false;
}

}  // namespace

unsigned VirtioDevice::typeOf(const PciFunction& function) {
  if (function.vendor() != VIRTIO_VENDOR) {
    return 0;
  }
  uint16_t device = function.device();
  return device > FIRST_MODERN_DEVICE && device <= LAST_MODERN_DEVICE ? device - FIRST_MODERN_DEVICE
                                                                      : 0;
}

bool VirtioDevice::attach(const DriverContext& driverContext, const PciFunction& function) {
  context = &driverContext;
  for (unsigned at = function.capability(CAPABILITY_VENDOR); at;
       at = function.capability(CAPABILITY_VENDOR, at)) {
    auto type = function.read<uint8_t>(at + 3);
    if (type < COMMON_CFG || type > DEVICE_CFG) {
      continue;
    }
    uint64_t bar = context->bus.bar(function, function.read<uint8_t>(at + 4));
    uint64_t block = bar ? bar + function.read<uint32_t>(at + 8) : 0;
    if (type == COMMON_CFG && !commonBlock) {  // the first of a type counts (§4.1.4.1)
      commonBlock = block;
    } else if (type == NOTIFY_CFG && !notifyBlock) {
      notifyBlock = block;
      notifyMultiplier = function.read<uint32_t>(at + 16);
    } else if (type == ISR_CFG && !isrBlock) {
      isrBlock = block;
    } else if (type == DEVICE_CFG && !deviceBlock) {
      deviceBlock = block;
    }
  }
  if (!commonBlock || !notifyBlock || !isrBlock) {
    return false;
  }
  if (context->delivery == Delivery::INTX) {
    function.enableWithIntx();
    return true;
  }
  return function.enableWithMsix(context->bus, interruptMessage());
}

bool VirtioDevice::negotiate(uint64_t wanted) {
  writeRegister<uint8_t>(commonBlock + DEVICE_STATUS, 0);
  uint64_t start = readTsc();
  while (status() != 0) {
    if (readTsc() - start > context->timeoutCycles) {
      return false;
    }
    pause();
  }
  writeRegister<uint8_t>(commonBlock + DEVICE_STATUS, ACKNOWLEDGE);
  writeRegister<uint8_t>(commonBlock + DEVICE_STATUS, ACKNOWLEDGE | DRIVER);
  offeredFeatures = 0;
  for (unsigned half = 0; half < 2; ++half) {
    writeRegister<uint32_t>(commonBlock + DEVICE_FEATURE_SELECT, half);
    offeredFeatures |= static_cast<uint64_t>(readRegister<uint32_t>(commonBlock + DEVICE_FEATURE))
                       << 32 * half;
  }
  acceptedFeatures = offeredFeatures & (wanted | context->ringFeatures | FEATURE_VERSION_1);
  for (unsigned half = 0; half < 2; ++half) {
    writeRegister<uint32_t>(commonBlock + DRIVER_FEATURE_SELECT, half);
    writeRegister<uint32_t>(commonBlock + DRIVER_FEATURE, acceptedFeatures >> 32 * half);
  }
  writeRegister<uint8_t>(commonBlock + DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
  writeRegister<uint16_t>(commonBlock + CONFIG_MSIX_VECTOR, NO_VECTOR);
  return (status() & FEATURES_OK) && has(FEATURE_VERSION_1);
}

bool VirtioDevice::addQueue(uint16_t index, uint16_t maxSize, Completion completion, Ring& ring) {
  if (index >= MAX_QUEUES) {
    return false;
  }
  writeRegister<uint16_t>(commonBlock + QUEUE_SELECT, index);
  uint16_t size = readRegister<uint16_t>(commonBlock + QUEUE_SIZE);
  if (size > maxSize) {
    size = maxSize;
    writeRegister<uint16_t>(commonBlock + QUEUE_SIZE, size);
  }
  if (size == 0 || (size & (size - 1)) || !ring.create(size, has(FEATURE_EVENT_IDX))) {
    return false;
  }
  bool vector = completion == Completion::INTERRUPT && context->delivery == Delivery::MSIX;
  writeRegister<uint16_t>(commonBlock + QUEUE_MSIX_VECTOR, vector ? 0 : NO_VECTOR);
  write64(commonBlock + QUEUE_DESC, ring.descriptorArea());
  write64(commonBlock + QUEUE_DRIVER, ring.driverArea());
  write64(commonBlock + QUEUE_DEVICE, ring.deviceArea());
  notifyAddress[index] =
      notifyBlock + readRegister<uint16_t>(commonBlock + QUEUE_NOTIFY_OFF) * notifyMultiplier;
  writeRegister<uint16_t>(commonBlock + QUEUE_ENABLE, 1);
  return !vector || readRegister<uint16_t>(commonBlock + QUEUE_MSIX_VECTOR) == 0;
}

bool VirtioDevice::start() {
  writeRegister<uint8_t>(commonBlock + DEVICE_STATUS,
                         ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  return status() == (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

uint8_t VirtioDevice::status() const {
  return readRegister<uint8_t>(commonBlock + DEVICE_STATUS);
}

void VirtioDevice::publish(Ring& ring, uint16_t queue) {
  if (ring.publish()) {
    ++notifications;
    writeRegister<uint16_t>(notifyAddress[queue], queue);
  }
}

bool VirtioDevice::publishForInterrupt(Ring& ring, uint16_t queue) {
  uint64_t start = readTsc();
  ring.wantInterrupt();
  publish(ring, queue);
  while (sleepOnce() != Wake::DEVICE) {
    if (readTsc() - start > context->timeoutCycles) {
      return false;
    }
  }
  return sleepUntilUsed(&ring, 1);
}

bool VirtioDevice::await(Ring* rings, unsigned count, Completion completion) {
  if (completion == Completion::INTERRUPT) {
    return sleepUntilUsed(rings, count);
  }
  uint64_t start = readTsc();
  // The clock is looked at now and then only: a used index is seen sooner.
  for (unsigned spins = 1; !anyUsed(rings, count); ++spins) {
    pause();
    if (spins % 1024 == 0 && readTsc() - start > context->timeoutCycles) {
      return false;
    }
  }
  return true;
}

bool VirtioDevice::sleepUntilUsed(Ring* rings, unsigned count) {
  uint64_t start = readTsc();
  while (!anyUsed(rings, count)) {
    for (unsigned i = 0; i < count; ++i) {
      rings[i].wantInterrupt();
    }
    if (!anyUsed(rings, count) && sleepOnce() == Wake::TIMER &&
        readTsc() - start > context->timeoutCycles) {
      return false;
    }
  }
  for (unsigned i = 0; i < count; ++i) {
    rings[i].refuseInterrupts();
  }
  return true;
}

Wake VirtioDevice::sleepOnce() {
  Wake wake = waitForInterrupt();
  if (wake == Wake::DEVICE) {
    ++interrupts;
    if (context->delivery == Delivery::INTX) {
      readRegister<uint8_t>(isrBlock);  // reading lowers the line (§4.1.4.5)
      endLevelInterrupt();
    }
  }
  return wake;
}

}  // namespace payload
