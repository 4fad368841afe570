#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstddef>

#include "devices/virtio/vital_signs.h"

namespace troupe::virtio {

// How the memory that outlives a device process is divided: the journals of its queues
// (queue_journal.h), the requests it was told not to try again (quarantine.h), and whether it is
// well (vital_signs.h). The process maps all of it; `troupe` reads the last two.
struct KeptMemory {
  static constexpr size_t END = 1 << 20;  // where it ends in the file; an engine's own is behind
  static constexpr size_t SIGNS_BYTES = VitalSigns::BYTES;
  static constexpr size_t QUARANTINE_BYTES = 64 << 10;

  // `memory` of a process of this device, as long each time: whole pages, more than the two parts
  // behind the journals.
  explicit KeptMemory(kj::ArrayPtr<kj::byte> memory) {
    size_t signsAt = memory.size() - SIGNS_BYTES;
    size_t quarantineAt = signsAt - QUARANTINE_BYTES;
    journals = memory.slice(0, quarantineAt);
    quarantine = memory.slice(quarantineAt, signsAt);
    signs = memory.slice(signsAt, memory.size());
  }

  kj::ArrayPtr<kj::byte> journals;
  kj::ArrayPtr<kj::byte> quarantine;
  kj::ArrayPtr<kj::byte> signs;
};

}  // namespace troupe::virtio
