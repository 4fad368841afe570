#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/interrupts.h"

namespace troupe::broker {

constexpr uint32_t MSIX_ENTRY_SIZE = 16;  // PCI Local Bus 3.0, §6.8.2
constexpr uint16_t MSIX_CONTROL_ENABLE = 1 << 15;
constexpr uint16_t MSIX_CONTROL_FUNCTION_MASK = 1 << 14;

constexpr uint16_t NO_VECTOR = 0xffff;  // VIRTIO_MSI_NO_VECTOR, §4.1.5.1.2

// The MSI-X table and pending bits of one function, and which eventfds raise which vector.
//
// A vector is armed while MSI-X is on, neither the vector nor the function is masked, the function
// is a bus master and the message is one a local APIC takes. While armed its eventfds are irqfds of
// the vector's GSI and nobody here sees an interrupt pass. Otherwise they are detached, and what
// they count is the pending bit, delivered when the vector is armed again. Not synchronized.
class Msix {
 public:
  // Takes one GSI per vector. `sources`: the eventfds (non-blocking, borrowed) that can be
  // connected. Both counts fit a page of table. Throws when there are no GSIs left.
  Msix(Interrupts& interrupts, uint16_t vectorCount, kj::Array<int> sources);
  ~Msix() noexcept(false);
  KJ_DISALLOW_COPY(Msix);

  uint16_t vectorCount() const { return vectors.size(); }
  bool enabled() const { return on; }

  // The message control word of the capability, and whether the function may write to memory.
  void setControl(uint16_t control, bool busMaster);

  // Lets `source` (an index) raise `vector`, below vectorCount(), or none: NO_VECTOR.
  void connect(uint16_t source, uint16_t vector);

  // Raises `vector` once, or sets its pending bit. NO_VECTOR does nothing.
  void raise(uint16_t vector);

  // Forgets what is pending and what the sources count: the device behind them was reset.
  void discard();

  // The table as after power-on: every vector masked, without a message. To be called while MSI-X is
  // off.
  void clearTable();

  // Guest accesses. Writes that are not aligned 32 or 64-bit ones are ignored (§6.8.2), and bytes
  // behind the end read as zero.
  void readTable(uint64_t offset, kj::ArrayPtr<kj::byte> data) const;
  void writeTable(uint64_t offset, kj::ArrayPtr<const kj::byte> data);
  void readPending(uint64_t offset, kj::ArrayPtr<kj::byte> data);

 private:
  struct Vector {
    uint32_t words[4] = {0, 0, 0, 1};  // address low and high, data, control: masked at first
    uint32_t programmed[3] = {};       // the message `gsi` has in the kernel, if `isProgrammed`
    bool isProgrammed = false;
    uint32_t gsi;
    bool armed = false;
    bool pending = false;
  };
  struct Source {
    int fd;
    uint16_t vector = NO_VECTOR;
    bool attached = false;
  };

  void writeWord(uint64_t offset, uint32_t value);
  void refresh(uint16_t index);
  bool program(Vector& vector);
  void attach(Source& source);
  void detach(Source& source);

  Interrupts& interrupts;
  kj::Array<Vector> vectors;
  kj::Array<Source> sources;
  bool on = false;
  bool deliverable = false;
};

// Empties a non-blocking eventfd and tells whether it had counted anything.
bool drainEventFd(int fd);

// Adds one to an eventfd.
void signalEventFd(int fd);

}  // namespace troupe::broker
