#pragma once

#include <kj/function.h>

#include <cstdint>

#include "broker/bus.h"

namespace troupe::broker {

// pvpanic (QEMU's docs/specs/pvpanic): a byte by which a kernel says that it panicked. Linux finds
// it in ACPI as QEMU0001. Any thread.
class PanicPort final: public BusDevice {
 public:
  static constexpr uint8_t PANICKED = 1 << 0;
  // It goes on into a kernel of its own, made for this case, and deals with it there.
  static constexpr uint8_t CRASH_LOADED = 1 << 1;

  // `panicked`: called on the vCPU's thread, as often as the guest says so.
  explicit PanicPort(kj::Function<void()> panicked);

  // Reads say which of the two are understood.
  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override;
  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override;

 private:
  kj::Function<void()> panicked;
};

}  // namespace troupe::broker
