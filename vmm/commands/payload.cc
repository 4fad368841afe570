#include "vmm/commands/payload.h"

// Made by the linker around the executable of //guest/payload (BUILD.bazel).
extern "C" const kj::byte _binary_troupe_payload_start[];
extern "C" const kj::byte _binary_troupe_payload_end[];

namespace troupe {

kj::ArrayPtr<const kj::byte> payloadKernel() {
  return kj::arrayPtr(_binary_troupe_payload_start, _binary_troupe_payload_end);
}

}  // namespace troupe
