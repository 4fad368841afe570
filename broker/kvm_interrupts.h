#pragma once

#include <kj/vector.h>

#include <mutex>

#include "broker/interrupts.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {

// Interrupts of a KVM VM with in-kernel interrupt controllers.
class KvmInterrupts final: public Interrupts {
 public:
  // `vm`: a VM that has its interrupt controllers; borrowed. Connects the pins of the I/O APIC and
  // nothing to the PIC, which no guest of ours is told of and so none would mask.
  explicit KvmInterrupts(int vm);
  KJ_DISALLOW_COPY(KvmInterrupts);

  uint32_t allocateMsiGsi() override;
  bool setMsi(uint32_t gsi, uint64_t address, uint32_t data) override;
  bool attachIrqFd(uint32_t gsi, int eventFd) override;
  void detachIrqFd(uint32_t gsi, int eventFd) override;
  void sendMsi(uint32_t gsi) override;
  void setLine(uint32_t gsi, bool level) override;
  bool attachIoEventFd(uint64_t address, int eventFd) override;
  void detachIoEventFd(uint64_t address, int eventFd) override;

 private:
  struct Message {
    bool set = false;
    uint64_t address = 0;
    uint32_t data = 0;
  };

  bool putRoutes(kj::ArrayPtr<const Message> messages);
  kj::Maybe<Message&> messageOf(uint32_t gsi);

  int vm;
  // Held while the kernel takes a new table, which it does in some ten microseconds, one after the
  // other. A guest may keep it busy with that; who only sends a message does not wait for it.
  std::mutex updating;
  std::mutex mutex;              // guards `messages`; who changes them holds `updating` too
  kj::Vector<Message> messages;  // messages[i] belongs to FIRST_MSI_GSI + i
};

}  // namespace troupe::broker
