#include "broker/kvm_interrupts.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "broker/memory_map.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint32_t IOAPIC_PINS = 24;
constexpr uint32_t MAX_GSIS = 4096;  // KVM_MAX_IRQ_ROUTES

static_assert(IOAPIC_PINS == FIRST_MSI_GSI, "MSIs follow the pins");

bool done(int fd, unsigned long request, const void* argument) {
  return ::ioctl(fd, request, argument) >= 0;
}

}  // namespace

KvmInterrupts::KvmInterrupts(int vm) : vm(vm) {
  if (!putRoutes(nullptr)) {
    refuse("TRP-kvm-003: the host's KVM refuses KVM_SET_GSI_ROUTING: ", strerror(errno));
  }
}

uint32_t KvmInterrupts::allocateMsiGsi() {
  std::lock_guard<std::mutex> alone(updating);
  std::lock_guard<std::mutex> lock(mutex);
  if (FIRST_MSI_GSI + messages.size() >= MAX_GSIS) {
    refuse("TRP-kvm-005: the devices of this VM want more than the ", MAX_GSIS - FIRST_MSI_GSI,
           " interrupt vectors KVM has");
  }
  messages.add();
  return FIRST_MSI_GSI + messages.size() - 1;
}

kj::Maybe<KvmInterrupts::Message&> KvmInterrupts::messageOf(uint32_t gsi) {
  if (gsi < FIRST_MSI_GSI || gsi - FIRST_MSI_GSI >= messages.size()) return nullptr;
  return messages[gsi - FIRST_MSI_GSI];
}

bool KvmInterrupts::setMsi(uint32_t gsi, uint64_t address, uint32_t data) {
  std::lock_guard<std::mutex> alone(updating);
  KJ_IF_MAYBE (message, messageOf(gsi)) {
    // Drivers write what is there already each time they unmask; the kernel's update is not cheap.
    if (message->set && message->address == address && message->data == data) return true;
    Message before = *message;
    auto change = [this, message](const Message& to) {
      std::lock_guard<std::mutex> lock(mutex);
      *message = to;
    };
    change(Message{true, address, data});
    if (putRoutes(messages)) return true;
    change(before);
  }
  return false;
}

bool KvmInterrupts::putRoutes(kj::ArrayPtr<const Message> list) {
  size_t room =
      sizeof(kvm_irq_routing) + (IOAPIC_PINS + list.size()) * sizeof(kvm_irq_routing_entry);
  auto words = kj::heapArray<uint64_t>((room + 7) / 8);
  memset(words.begin(), 0, words.size() * 8);
  auto& table = *reinterpret_cast<kvm_irq_routing*>(words.begin());

  for (uint32_t pin = 0; pin < IOAPIC_PINS; ++pin) {
    auto& entry = table.entries[table.nr++];
    entry.gsi = pin;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = pin;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].set) continue;
    auto& entry = table.entries[table.nr++];
    entry.gsi = FIRST_MSI_GSI + i;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = uint32_t(list[i].address);
    entry.u.msi.address_hi = uint32_t(list[i].address >> 32);
    entry.u.msi.data = list[i].data;
  }
  return done(vm, KVM_SET_GSI_ROUTING, &table);
}

bool KvmInterrupts::attachIrqFd(uint32_t gsi, int eventFd) {
  kvm_irqfd request{};
  request.fd = eventFd;
  request.gsi = gsi;
  return done(vm, KVM_IRQFD, &request);
}

void KvmInterrupts::detachIrqFd(uint32_t gsi, int eventFd) {
  kvm_irqfd request{};
  request.fd = eventFd;
  request.gsi = gsi;
  request.flags = KVM_IRQFD_FLAG_DEASSIGN;
  done(vm, KVM_IRQFD, &request);
}

void KvmInterrupts::sendMsi(uint32_t gsi) {
  kvm_msi request{};
  {
    std::lock_guard<std::mutex> lock(mutex);
    KJ_IF_MAYBE (message, messageOf(gsi)) {
      if (!message->set) return;
      request.address_lo = uint32_t(message->address);
      request.address_hi = uint32_t(message->address >> 32);
      request.data = message->data;
    } else {
      return;
    }
  }
  done(vm, KVM_SIGNAL_MSI, &request);
}

void KvmInterrupts::setLine(uint32_t gsi, bool level) {
  kvm_irq_level request{};
  request.irq = gsi;
  request.level = level;
  done(vm, KVM_IRQ_LINE, &request);
}

bool KvmInterrupts::attachIoEventFd(uint64_t address, int eventFd) {
  kvm_ioeventfd request{};
  request.addr = address;
  request.len = 0;  // any width
  request.fd = eventFd;
  return done(vm, KVM_IOEVENTFD, &request);
}

void KvmInterrupts::detachIoEventFd(uint64_t address, int eventFd) {
  kvm_ioeventfd request{};
  request.addr = address;
  request.len = 0;
  request.fd = eventFd;
  request.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
  done(vm, KVM_IOEVENTFD, &request);
}

}  // namespace troupe::broker
