#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/memory.h>

#include <cstdint>

namespace troupe::broker {

// Registers that answer to a range of addresses. Called on vCPU threads, several at once: an
// implementation locks for itself, never blocks and never calls a device. `data` has 1 to 8 bytes.
class BusDevice {
 public:
  virtual void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) = 0;
  virtual void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) = 0;
};

// One address space of the guest (memory-mapped or port I/O) and who answers where. Reads that
// nobody answers give all ones; writes are dropped. Any thread.
class Bus {
 public:
  Bus();
  ~Bus() noexcept(false);
  KJ_DISALLOW_COPY(Bus);

  // `device` answers [start, start + size) until remove(). A range that meets an earlier one, or
  // that wraps, is refused: the answer is false and nothing changes.
  //
  // A device may call add() and remove() from within busRead() and busWrite(), while it holds its own
  // lock: no lock of the bus is held during these. An access that began before remove() may still
  // reach the device after it.
  bool add(uint64_t start, uint64_t size, BusDevice& device);
  void remove(uint64_t start);

  void read(uint64_t address, kj::ArrayPtr<kj::byte> data);
  void write(uint64_t address, kj::ArrayPtr<const kj::byte> data);

 private:
  struct State;
  kj::Own<State> state;
};

// Work for the broker's main loop from any thread. Returns at once.
class Mailbox {
 public:
  virtual void post(kj::Function<void()> action) = 0;
};

}  // namespace troupe::broker
