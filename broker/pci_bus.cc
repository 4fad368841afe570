#include "broker/pci_bus.h"

#include <kj/debug.h>

#include <atomic>
#include <cstring>

#include "broker/memory_map.h"
#include "broker/pci_config.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint32_t SLOTS = 32;  // five bits of device number
constexpr uint32_t PIO_SIZE = 8;
constexpr uint32_t CONFIG_ADDRESS_ENABLE = 1u << 31;  // PCI Local Bus 3.0, §3.2.2.3.2

// The bridge from the CPUs to bus 0. It has nothing to set; Linux and others expect one at 00:00.0.
class HostBridge final: public PciFunction {
 public:
  // The ids of QEMU's generic PCI Express host bridge, which no driver binds to.
  HostBridge() : config({0x1b36, 0x0008, 0, 0x060000, 0x1af4, 0x1100}) {}

  void configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) override {
    config.read(offset, data);
  }
  void configWrite(uint32_t, kj::ArrayPtr<const kj::byte>) override {}

 private:
  const PciConfigSpace config;
};

// An address as ECAM lays it out (PCI Express Base 5.0, §7.2.2).
uint64_t ecamOffset(uint32_t bus, uint32_t deviceFunction, uint32_t reg) {
  return static_cast<uint64_t>(bus) << 20 | deviceFunction << 12 | reg;
}

}  // namespace

struct PciBus::State {
  State(Bus& mmio, Bus& pio) : mmio(mmio), pio(pio), ecam(*this), ports(*this) {
    KJ_REQUIRE(mmio.add(ECAM_START, ECAM_SIZE, ecam), "ECAM's place is taken");
    KJ_REQUIRE(pio.add(PCI_CONFIG_ADDRESS_PORT, PIO_SIZE, ports), "ports CF8h to CFFh are taken");
  }
  ~State() noexcept(false) {
    mmio.remove(ECAM_START);
    pio.remove(PCI_CONFIG_ADDRESS_PORT);
  }

  // The function that owns all `size` bytes at `address` of ECAM.
  PciFunction* find(uint64_t address, size_t size) {
    uint32_t bus = address >> 20;
    uint32_t slot = address >> 15 & 31;
    uint32_t function = address >> 12 & 7;
    bool inside = size <= PCI_CONFIG_SIZE - address % PCI_CONFIG_SIZE;
    return bus == 0 && function == 0 && inside ? functions[slot] : nullptr;
  }

  void read(uint64_t address, kj::ArrayPtr<kj::byte> data) {
    PciFunction* function = find(address, data.size());
    if (function == nullptr) return memset(data.begin(), 0xff, data.size()), void();
    function->configRead(address % PCI_CONFIG_SIZE, data);
  }

  void write(uint64_t address, kj::ArrayPtr<const kj::byte> data) {
    PciFunction* function = find(address, data.size());
    if (function != nullptr) function->configWrite(address % PCI_CONFIG_SIZE, data);
  }

  struct Ecam final: public BusDevice {
    explicit Ecam(State& state) : state(state) {}
    void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override {
      state.read(offset, data);
    }
    void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override {
      state.write(offset, data);
    }
    State& state;
  };

  // CF8h selects a register, four times a byte of CFCh reaches it. Only a whole 32-bit access at
  // CF8h is the selector; narrower ones would be other chips' ports and nobody answers them.
  struct Ports final: public BusDevice {
    explicit Ports(State& state) : state(state) {}

    void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override {
      memset(data.begin(), 0xff, data.size());
      if (offset == 0 && data.size() == 4) {
        uint32_t value = selector;
        memcpy(data.begin(), &value, sizeof value);
        return;
      }
      KJ_IF_MAYBE (address, selected(offset, data.size())) {
        state.read(*address, data);
      }
    }

    void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override {
      if (offset == 0 && data.size() == 4) {
        uint32_t value;
        memcpy(&value, data.begin(), sizeof value);
        selector = value & 0x80fffffc;  // the rest is reserved, reads as 0
        return;
      }
      KJ_IF_MAYBE (address, selected(offset, data.size())) {
        state.write(*address, data);
      }
    }

    // Where an access at `offset` of the ports leads; none unless it lies in the data register.
    kj::Maybe<uint64_t> selected(uint64_t offset, size_t size) {
      uint32_t value = selector;
      if (offset < 4 || offset + size > PIO_SIZE) return nullptr;
      if ((value & CONFIG_ADDRESS_ENABLE) == 0) return nullptr;
      uint32_t reg = (value & 0xfc) + (offset - 4);
      return ecamOffset(value >> 16 & 0xff, value >> 8 & 0xff, reg);
    }

    State& state;
    std::atomic<uint32_t> selector{0};
  };

  Bus& mmio;
  Bus& pio;
  HostBridge hostBridge;
  PciFunction* functions[SLOTS] = {&hostBridge};
  uint32_t nextSlot = 1;
  uint64_t nextMmio = MMIO32_START;
  Ecam ecam;
  Ports ports;
};

PciBus::PciBus(Bus& mmio, Bus& pio) : state(kj::heap<State>(mmio, pio)) {}
PciBus::~PciBus() noexcept(false) = default;

uint8_t PciBus::add(PciFunction& function) {
  if (state->nextSlot == SLOTS) {
    refuse("TRP-pci-001: one device too many: a VM has at most ", SLOTS - 1);
  }
  state->functions[state->nextSlot] = &function;
  return state->nextSlot++;
}

uint32_t PciBus::allocateMmio(uint32_t size) {
  uint64_t start = (state->nextMmio + size - 1) & ~static_cast<uint64_t>(size - 1);
  KJ_REQUIRE(start + size <= MMIO32_END, "the 32-bit MMIO window is used up", size);
  state->nextMmio = start + size;
  return start;
}

void PciBus::powerOn() {
  state->ports.selector = 0;
}

uint32_t PciBus::intxGsi(uint8_t slot) {
  return FIRST_INTX_GSI + slot % INTX_GSI_COUNT;
}

}  // namespace troupe::broker
