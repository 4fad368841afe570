#pragma once

#include <kj/common.h>

namespace troupe {

// The embedded default guest: an ELF kernel (guest/payload).
kj::ArrayPtr<const kj::byte> payloadKernel();

}  // namespace troupe
