// Fuzzes the virtio transport: its registers alone, beside what is known of them from the
// specification, and as a function on a PCI bus with everything a guest can reach of it.
#include <kj/async-io.h>
#include <kj/debug.h>

#include <cstring>
#include <memory>

#include "broker/bus.h"
#include "broker/fd_table.h"
#include "broker/intx_lines.h"
#include "broker/memory_map.h"
#include "broker/msix.h"
#include "broker/pci_bus.h"
#include "broker/pci_config.h"
#include "broker/pci_fakes.h"
#include "broker/virtio_pci_config.h"
#include "broker/virtio_pci_function.h"
#include "broker/virtio_transport.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::broker {
namespace {

using fuzz::finding;
using fuzz::Op;

constexpr uint16_t VECTORS = 3;
constexpr uint64_t OFFERED = FEATURES_FOR_TESTS | FEATURE_VERSION_1;
constexpr size_t CONFIG_BYTES = 16;

// What is true of every device that was started, however its driver went about it.
void checkStart(uint64_t features, kj::ArrayPtr<const QueueSettings> queues, uint16_t count) {
  if (!(features & FEATURE_VERSION_1)) finding("a device starts without VERSION_1");
  if (features & ~OFFERED) finding("a device starts with features it never offered");
  uint32_t seen = 0;
  for (const QueueSettings& queue : queues) {
    if (queue.index >= count || seen & 1u << queue.index) finding("a queue twice, or none");
    seen |= 1u << queue.index;
    if (queue.size == 0 || queue.size & (queue.size - 1) || queue.size > 256) {
      finding(kj::str("a queue of ", queue.size, " descriptors"));
    }
  }
}

// §2.1 and §3.1.1.
void checkStatus(uint8_t status) {
  auto needs = [status](uint8_t bit, uint8_t others) {
    if (status & bit && (status & others) != others) {
      finding(kj::str("the status is ", status, ": bit ", bit, " without those before it"));
    }
  };
  needs(STATUS_FEATURES_OK, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
  needs(STATUS_DRIVER_OK, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
}

// The registers, and beside them the bytes of the configuration space as they must be.
class Registers {
 public:
  void perform(const Op& op) {
    kj::byte bytes[16];
    memcpy(bytes, &op.d, 8);
    memcpy(bytes + 8, &op.d, 8);
    size_t width = op.a & 0x40 ? op.c % 17 : size_t(1) << op.a % 4;
    auto data = kj::arrayPtr(bytes, width);
    switch (op.kind % 8) {
      case 0:
        act(transport.writeCommon(op.b % (COMMON_SIZE + 8), data));
        break;
      case 1:  // a register, at its own width
        writeRegister(op);
        break;
      case 2:
        transport.readCommon(op.b, data);
        break;
      case 3: {
        uint64_t offset = op.b % (CONFIG_BYTES + 4);
        size_t told = transport.writeConfig(offset, data);
        if (told > 0 && offset + told > CONFIG_BYTES) finding("a device is told of bytes it has not");
        if (resetting || offset >= CONFIG_BYTES) break;
        for (size_t i = 0; i < data.size() && offset + i < CONFIG_BYTES; i++) {
          kj::byte mask = description.configWriteMask[offset + i];
          expected[offset + i] = (expected[offset + i] & ~mask) | (data[i] & mask);
        }
        break;
      }
      case 4: {
        uint64_t offset = op.c % 4 == 0 ? op.d : op.b % (CONFIG_BYTES + 2);
        if (transport.configChanged(offset, data)) {
          if (offset > CONFIG_BYTES || width > CONFIG_BYTES - offset) finding("a change outside");
          memcpy(expected + offset, data.begin(), width);
        }
        break;
      }
      case 5:
        start(op);
        break;
      case 6:
        if (transport.needsReset() && !transport.active()) finding("an idle device needs a reset");
        transport.raiseIsr(op.a & 3);
        transport.takeIsr();
        KJ_IF_MAYBE (queue, transport.notifiedQueue(op.d)) {
          if (*queue >= transport.queueCount()) finding("a notification of no queue");
        }
        break;
      default:
        if (transport.resetDone() != resetting) finding("a reset nobody asked for");
        resetting = false;
        break;
    }
    check();
  }

 private:
  void writeRegister(const Op& op) {
    static constexpr struct {
      uint16_t offset;
      uint8_t width;
    } REGISTERS[] = {{DEVICE_FEATURE_SELECT, 4},
                     {DRIVER_FEATURE_SELECT, 4},
                     {DRIVER_FEATURE, 4},
                     {CONFIG_MSIX_VECTOR, 2},
                     {DEVICE_STATUS, 1},
                     {QUEUE_SELECT, 2},
                     {QUEUE_SIZE, 2},
                     {QUEUE_MSIX_VECTOR, 2},
                     {QUEUE_ENABLE, 2},
                     {QUEUE_DESC, 8},
                     {QUEUE_DRIVER, 8},
                     {QUEUE_DEVICE, 8}};
    auto which = REGISTERS[op.a % 12];
    act(transport.writeCommon(which.offset,
                              kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), which.width)));
  }

  // As a driver starts a device, up to a step and with some of them left out.
  void start(const Op& op) {
    auto write = [&](int step, uint64_t offset, uint32_t value, size_t width) {
      if (op.b >> step & 1) return;
      act(transport.writeCommon(offset,
                                kj::arrayPtr(reinterpret_cast<const kj::byte*>(&value), width)));
    };
    write(0, DEVICE_STATUS, STATUS_ACKNOWLEDGE, 1);
    write(1, DEVICE_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER, 1);
    write(2, DRIVER_FEATURE_SELECT, 1, 4);
    write(3, DRIVER_FEATURE, op.a & 1 ? op.c : 1, 4);
    write(4, DEVICE_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK, 1);
    write(5, QUEUE_SELECT, op.d, 2);
    write(6, QUEUE_ENABLE, 1, 2);
    write(7, DEVICE_STATUS, 15, 1);
  }

  void act(TransportAction action) {
    if (action == TransportAction::ACTIVATE) {
      if (wasActive) finding("a device starts twice");
      auto queues = transport.enabledQueues();
      checkStart(transport.features(), queues, transport.queueCount());
    }
    if (action == TransportAction::RESET) {
      if (!wasActive) finding("a device that is off is reset");
      resetting = true;
    }
    wasActive = transport.active();
  }

  void check() {
    kj::byte common[COMMON_SIZE];
    transport.readCommon(0, common);
    checkStatus(common[DEVICE_STATUS]);
    kj::byte config[CONFIG_BYTES + 4];
    transport.readConfig(0, config);
    memset(expected + CONFIG_BYTES, 0, 4);
    if (memcmp(config, expected, sizeof(config)) != 0) {
      finding("the configuration space is not what was written to it");
    }
    uint16_t vector = transport.configVector();
    if (vector != NO_VECTOR && vector >= VECTORS) finding("a vector that is none");
    for (uint16_t i = 0; i < transport.queueCount(); i++) {
      vector = transport.queueVector(i);
      if (vector != NO_VECTOR && vector >= VECTORS) finding("a vector that is none");
    }
    wasActive = transport.active();
  }

  const DeviceDescription description = describe(2, {256, 64});
  VirtioTransport transport{description, VECTORS};
  kj::byte expected[CONFIG_BYTES + 4] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
                                         0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
  bool wasActive = false;
  bool resetting = false;
};

// A device that answers when it is told to, and knows the order in which it must be called.
class OrderlyDevice final: public VirtioDevice {
 public:
  void activate(uint64_t features, kj::Array<QueueSettings> queues) override {
    if (isActive || isResetting) finding("a device is started before it let go");
    checkStart(features, queues, 2);
    isActive = true;
  }
  void reset() override {
    if (!isActive || isResetting) finding("a device that is off is reset");
    isResetting = true;
  }
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    if (offset > CONFIG_BYTES || data.size() > CONFIG_BYTES - offset) {
      finding("a device is told of bytes it has not");
    }
  }
  // Whether a reset was under way.
  bool letGo() {
    bool was = isResetting;
    if (was) isActive = isResetting = false;
    return was;
  }
  bool isActive = false;
  bool isResetting = false;
};

// The function on its bus.
class Machine {
 public:
  static kj::AsyncIoContext& io() {
    static kj::AsyncIoContext it = kj::setupAsyncIo();
    return it;
  }

  void perform(const Op& op) {
    uint64_t bar = read(PCI_ADDRESS + PCI_BAR0, 4) & ~uint64_t(15);
    size_t width = size_t(1) << op.a % 4;
    switch (op.kind % 8) {
      case 0:
      case 1:  // a structure in the BAR
        write(bar + op.c % 8 * BAR_PAGE + op.b % 0x40, op.d, width);
        break;
      case 2:  // configuration space
        write(PCI_ADDRESS + op.b % (op.a & 0x80 ? 4096 : 256), op.d, kj::min(width, size_t(4)));
        break;
      case 3:
        read(op.a & 0x80 ? op.d : bar + op.b, width);
        read(PCI_ADDRESS + op.b % 4096, kj::min(width, size_t(4)));
        break;
      case 4:  // a vector
        vector(op.b % 4, op.d, op.c);
        break;
      case 5:
        start(bar, op);
        break;
      case 6:
        turn();
        break;
      default:
        fromTheDevice(op);
        break;
    }
    if (interrupts.nextGsi > FIRST_GSI + VECTORS + 2) finding("interrupts without end");
    if (mailbox.mostWaiting > 8) finding("errands pile up for the main loop");
    for (auto& message : interrupts.messages) {
      if ((message.second.first & 0xfff00000) != 0xfee00000) {
        finding("a message outside of the interrupt window");
      }
    }
  }

  void finish() {
    turn();
    if (device.letGo()) function->resetDone();
    turn();
  }

 private:
  static constexpr uint64_t PCI_ADDRESS = ECAM_START + 0x8000;  // slot 1
  static constexpr uint32_t FIRST_GSI = 24;

  uint64_t read(uint64_t address, size_t width) {
    uint64_t value = 0;
    mmio.read(address, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), width));
    return value;
  }
  void write(uint64_t address, uint64_t value, size_t width) {
    mmio.write(address, kj::arrayPtr(reinterpret_cast<const kj::byte*>(&value), width));
  }
  void turn() {
    mailbox.runAll();
    io().waitScope.poll();
    mailbox.runAll();
  }
  void vector(uint32_t index, uint64_t address, uint32_t data) {
    uint64_t entry = (read(PCI_ADDRESS + PCI_BAR0, 4) & ~uint64_t(15)) + BAR_TABLE + index * 16;
    write(entry, data & 0x100 ? address : 0xfee00000, 4);
    write(entry + 4, data & 0x200 ? address >> 32 : 0, 4);
    write(entry + 8, data & 0xff, 4);
    write(entry + 12, data >> 10 & 1, 4);
  }
  void start(uint64_t bar, const Op& op) {
    auto step = [&](int number, uint64_t address, uint64_t value, size_t width) {
      if (!(op.b >> number & 1)) write(address, value, width);
    };
    step(0, PCI_ADDRESS + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    step(1, bar + DEVICE_STATUS, 3, 1);
    step(2, bar + DRIVER_FEATURE_SELECT, 1, 4);
    step(3, bar + DRIVER_FEATURE, 1, 4);
    step(4, bar + DEVICE_STATUS, 11, 1);
    step(5, bar + QUEUE_MSIX_VECTOR, op.c % 4, 2);
    step(6, bar + QUEUE_ENABLE, 1, 2);
    step(7, bar + DEVICE_STATUS, 15, 1);
  }
  void fromTheDevice(const Op& op) {
    auto bytes = kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), op.b % 9);
    switch (op.a % 4) {
      case 0:
        if (device.letGo()) function->resetDone();
        break;
      case 1: {
        bool fits = op.c <= CONFIG_BYTES && bytes.size() <= CONFIG_BYTES - op.c;
        if (function->configChanged(op.c, bytes) != fits) finding("a change that does not fit");
        break;
      }
      case 2:
        function->needsReset();
        break;
      default:
        interrupts.signal(function->queueFds()[op.b % 2].call);
        break;
    }
  }

  Bus mmio;
  Bus pio;
  PciBus pci{mmio, pio};
  FakeInterrupts interrupts;
  IntxLines intxLines{interrupts};
  FakeMailbox mailbox;
  UnplacedFds fds;
  OrderlyDevice device;
  kj::Own<VirtioPciFunction> function = kj::heap<VirtioPciFunction>(
      describe(2, {256, 64}), device,
      PciSocket{pci, mmio, interrupts, intxLines, mailbox, fds, io().unixEventPort});
};

void run(kj::ArrayPtr<const kj::byte> input) {
  auto ops = fuzz::decode(input);
  if (ops.empty()) return;
  // Mostly the registers: they are where the rules are, and a bus costs system calls.
  if (ops[0].a % 4 == 3) {
    Machine::io();
    Machine machine;
    for (const Op& op : ops)
      machine.perform(op);
    machine.finish();
  } else {
    Registers registers;
    for (const Op& op : ops)
      registers.perform(op);
  }
}

}  // namespace
}  // namespace troupe::broker

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    troupe::broker::run(kj::arrayPtr(data, size));
  } catch (const kj::Exception& exception) {
    troupe::fuzz::finding(kj::str("an exception left the transport: ", exception));
  }
  return 0;
}
