#include "broker/machine.h"

#include <kj/debug.h>

#include "broker/acpi_tables.h"
#include "broker/boot_image.h"
#include "broker/cpuid.h"
#include "broker/kvm_call.h"
#include "broker/memory_map.h"
#include "broker/vcpu_state.h"

namespace troupe::broker {
namespace {

constexpr uint16_t KEYBOARD_DATA_PORT = 0x60;

// A kernel that panics tells us first and prints its last lines then; or it resets itself.
constexpr kj::Duration PANIC_GRACE = 1 * kj::SECONDS;
constexpr kj::Duration LAST_WORDS_WAIT = 1 * kj::SECONDS;

// A function of its own because RAM must be in place before the interrupt controllers are.
int withMemoryAndControllers(KvmVm& vm, const GuestRam& ram, const HostMemory& host) {
  vm.addMemory(ram, host);
  vm.addInterruptControllers();
  return vm.fd();
}

kj::Array<HostRegion> checked(kj::Array<HostRegion> regions, const GuestRam& ram) {
  checkHostRegions(regions, ram.regions());
  return regions;
}

void setCpuid(int vcpu, kj::ArrayPtr<const kvm_cpuid_entry2> entries) {
  size_t size = sizeof(kvm_cpuid2) + entries.size() * sizeof(kvm_cpuid_entry2);
  auto words = kj::heapArray<uint64_t>((size + 7) / 8);
  memset(words.begin(), 0, words.size() * 8);
  auto& list = *reinterpret_cast<kvm_cpuid2*>(words.begin());
  list.nent = entries.size();
  memcpy(list.entries, entries.begin(), entries.size() * sizeof(kvm_cpuid_entry2));
  kvmCall(vcpu, KVM_SET_CPUID2, &list, "KVM_SET_CPUID2");
}

uint32_t tscKhz(int vcpu) {
  int khz = ::ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
  return khz > 0 ? khz : 0;
}

uint8_t addressBits(kj::ArrayPtr<const kvm_cpuid_entry2> entries, uint8_t otherwise) {
  constexpr uint32_t LEAF_SIZES = 0x80000008;
  for (auto& e : entries) {
    if (e.function == LEAF_SIZES) return e.eax & 0xff;
  }
  return otherwise;
}

}  // namespace

Machine::Machine(MachineSettings settings, MachineGround ground)
    : ground(ground),
      guestRam(
          settings.regions.size() > 0 ? kj::mv(settings.regions) : ramRegions(settings.memoryBytes),
          settings.ram),
      hostMemory(checked(kj::mv(settings.hostMemory), guestRam)),
      interrupts(withMemoryAndControllers(ground.vm, guestRam, hostMemory)),
      intxLines(interrupts),
      gate(ground.mailbox),
      endLatch(ground.mailbox, gate),
      pci(mmio, pio),
      serialPort(interrupts, ground.mailbox, ground.events, settings.serial),
      acpiPorts(interrupts, endRequest(EndReason::POWERED_OFF), endRequest(EndReason::RESET)),
      resetPort(endRequest(EndReason::RESET)),
      panicPort([this]() { notePanic(); }) {
  addPlatformDevices();
  addVcpus(settings);
  stopping =
      kickAtEnd().eagerlyEvaluate([](kj::Exception&& e) { KJ_LOG(ERROR, "stopping vCPUs", e); });
}

// The latch holds the gate; who is inside of the guest learns of it so.
kj::Promise<void> Machine::kickAtEnd() {
  return endLatch.whenReported().then([this](const MachineEnd*) {
    for (auto& vcpu : vcpus)
      vcpu->kick();
  });
}

Machine::~Machine() noexcept(false) {
  gate.hold(Hold::ENDED);
  for (auto& vcpu : vcpus)
    vcpu->kick();
}

void Machine::addPlatformDevices() {
  bool free = pio.add(SERIAL_PORT, 8, serialPort);
  free = pio.add(ACPI_PORT, ACPI_PORT_COUNT, acpiPorts) && free;
  free = pio.add(PANIC_PORT, 1, panicPort) && free;
  free = pio.add(KEYBOARD_DATA_PORT, 1, resetPort) && free;
  free = pio.add(I8042_COMMAND_PORT, 1, resetPort) && free;
  KJ_ASSERT(free, "ports of the platform overlap");
}

GuestRequest Machine::endRequest(EndReason reason) {
  return [this, reason]() {
    bool isOfPanic = reason == EndReason::RESET && panicked.load();
    auto known = isOfPanic ? EndReason::PANICKED : reason;
    endLatch.report(MachineEnd{known, kj::str(""), 0});
  };
}

kj::Promise<void> Machine::lastWords() {
  return serialPort.whenPassedOn().exclusiveJoin(
      ground.events.getTimer().afterDelay(LAST_WORDS_WAIT));
}

void Machine::notePanic() {
  if (panicked.exchange(true)) return;
  ground.mailbox.post([this]() {
    panicking = ground.events.getTimer()
                    .afterDelay(PANIC_GRACE)
                    .then([this]() {
                      endLatch.report(MachineEnd{EndReason::PANICKED, kj::str(""), 0});
                    })
                    .eagerlyEvaluate(nullptr);
  });
}

void Machine::addVcpus(const MachineSettings& settings) {
  ground.vm.requireVcpus(settings.vcpus);
  VcpuSurroundings surroundings{mmio, pio, endLatch, gate, hostMemory};
  for (uint32_t i = 0; i < settings.vcpus; ++i) {
    vcpus.add(
        kj::heap<Vcpu>(i, ground.vm.addVcpu(i, ground.fds), ground.vm.runSize(), surroundings));
  }
  auto entries = planCpuid(supportedCpuid(ground.vm.kvm()),
                           CpuidPlan{settings.vcpus, ground.vm.hasTscDeadlineTimer(),
                                     tscKhz(vcpus[0]->fd()), settings.maskedFeatures});
  physicalAddressBits = addressBits(entries, physicalAddressBits);
  for (uint32_t i = 0; i < settings.vcpus; ++i) {
    setApicId(entries, i);
    setCpuid(vcpus[i]->fd(), entries);
    setFirmwareMsrs(vcpus[i]->fd());
  }
  setLocalInterruptPins(vcpus[0]->fd());
  auto msrs = changeableMsrs(ground.vm.kvm());
  for (auto& vcpu : vcpus)
    freshVcpus.add(kj::heap<VcpuPowerOn>(vcpu->fd(), msrs));
}

PciSocket Machine::pciSocket() {
  return PciSocket{pci, mmio, interrupts, intxLines, ground.mailbox, ground.fds, ground.events};
}

BootState Machine::load(const BootFile& kernelFile, KernelKind kind, const BootExtras& extras) {
  KernelImage kernel = loadKernel(kernelFile, guestRam, kind);
  auto& last = guestRam.regions()[guestRam.regions().size() - 1];
  uint64_t memoryEnd = kj::max(last.guestAddress + last.size, hostMemory.end());
  uint64_t rsdp = writeAcpiTables(
      guestRam, AcpiMachine{uint32_t(vcpus.size()), memoryEnd, physicalAddressBits});
  auto reserved = hostMemory.ranges();
  auto state = writeBootInfo(guestRam, kernel, kernelFile, extras, reserved, rsdp);
  boot = state;
  return state;
}

void Machine::start(kj::Function<void()> enterJail) {
  // The others wait for the first one's INIT and SIPI, inside of KVM.
  setBootRegisters(vcpus[0]->fd(), KJ_REQUIRE_NONNULL(boot, "no kernel is loaded"));
  for (auto& vcpu : vcpus) {
    vcpu->start([&enterJail]() { enterJail(); });
  }
  gate.awaitArrivals(vcpus.size());
}

void Machine::runAgain() {
  setBootRegisters(vcpus[0]->fd(), KJ_REQUIRE_NONNULL(boot, "no kernel is loaded"));
  gate.release(Hold::REBOOTING);
}

kj::Promise<void> Machine::whenVcpusRest(Hold why) {
  gate.hold(why);
  for (auto& vcpu : vcpus)
    vcpu->kick();
  return gate.whenArrived(vcpus.size());
}

kj::Promise<void> Machine::pause() {
  return whenVcpusRest(Hold::PAUSED);
}

kj::Promise<void> Machine::resume() {
  if (!isPaused()) return kj::READY_NOW;
  return gate.whenArrived(vcpus.size()).then([this]() {
    if (!isPaused()) return;
    // Refused where the guest does not use that clock.
    for (auto& vcpu : vcpus)
      ::ioctl(vcpu->fd(), KVM_KVMCLOCK_CTRL, 0);
    gate.release(Hold::PAUSED);
  });
}

kj::Promise<void> Machine::powerOff() {
  return whenVcpusRest(Hold::REBOOTING).then([this]() {
    panicking = nullptr;
    endLatch.forget();
    stopping =
        kickAtEnd().eagerlyEvaluate([](kj::Exception&& e) { KJ_LOG(ERROR, "stopping vCPUs", e); });
  });
}

kj::Promise<void> Machine::powerOn() {
  serialPort.reset();
  acpiPorts.powerOn();
  pci.powerOn();
  panicked = false;
  boot = nullptr;
  ground.vm.resetInterruptControllers();
  for (auto i : kj::indices(vcpus))
    freshVcpus[i]->putBack(vcpus[i]->fd());
  // Last of all: until its registers are put back KVM may write a vCPU's clock or stolen time
  // there.
  return clearRam(0);
}

// Piece by piece, with the loop's other work in between: freeing pages takes a while. By way of the
// timer, since a loop that has something to do at once does not look at its fds.
kj::Promise<void> Machine::clearRam(uint64_t offset) {
  constexpr uint64_t PIECE = 128 * MIB;  // some ten milliseconds
  uint64_t reached = guestRam.clear(offset, PIECE);
  if (reached == guestRam.size()) return kj::READY_NOW;
  return ground.events.getTimer().afterDelay(0 * kj::NANOSECONDS).then([this, reached]() {
    return clearRam(reached);
  });
}

uint64_t Machine::exits() const {
  uint64_t sum = 0;
  for (auto& vcpu : vcpus)
    sum += vcpu->exits();
  return sum;
}

}  // namespace troupe::broker
