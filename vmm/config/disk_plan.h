#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

#include "protos/config.capnp.h"
#include "vmm/config/rate_plan.h"

namespace troupe {

constexpr uint32_t MOST_DISKS = 28;  // 31 slots of PCI bus 0, less console, rng and one to spare
constexpr uint32_t MOST_QUEUES = 16;
constexpr uint32_t DISK_ID_BYTES = 20;  // §5.2.6, VIRTIO_BLK_T_GET_ID

enum class DiskFormat { RAW, QCOW2 };

// A file below a qcow2 image, which is only read.
struct BackingPlan {
  kj::String path;
  DiskFormat format;
};

constexpr uint32_t MOST_BACKING = 8;  // to a disk

struct DiskPlan {
  kj::String path;
  kj::String id;
  kj::String serial;  // what GET_ID answers
  bool readOnly;      // its file is only read
  bool direct;
  uint16_t queues;
  RatePlan rate;
  DiskFormat format = DiskFormat::RAW;
  kj::Array<BackingPlan> backing = nullptr;  // from top to bottom
  bool isVolatile = false;                   // readOnly, and what the guest writes goes to memory
  int handed = -1;  // its file, open already: `path` is a name then. Borrowed until it is opened
};

// Throws a user error for the first value that does not do.
kj::Array<DiskPlan> planDisks(capnp::List<DiskConfig>::Reader configs);

// Writes what was left to a default out in full. `disks` has passed planDisks().
void spellOutDisks(capnp::List<DiskConfig>::Builder disks);

}  // namespace troupe
