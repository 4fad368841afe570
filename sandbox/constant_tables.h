#pragma once

#include <cstddef>
#include <cstdint>

namespace troupe::sandbox {

struct Constant {
  const char* name;
  uint64_t value;
};

struct ConstantTable {
  const Constant* constants;
  size_t count;

  const Constant* begin() const { return constants; }
  const Constant* end() const { return constants + count; }
};

// What profiles may name, each table in a file of its own.
ConstantTable callConstants();   // arguments of system calls, ioctls of files among them
ConstantTable kvmConstants();    // KVM's ioctls and their arguments
ConstantTable layerConstants();  // resource limits, capabilities, operations of io_uring

}  // namespace troupe::sandbox
