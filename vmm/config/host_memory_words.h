#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// What guests see of a file or device of the host's, and where: the value of --permit-host-memory
// and of --host-memory,
//
//   PATH,at=ADDRESS[,size=SIZE][,offset=OFFSET][,device][,shared]
//
// A comma that belongs to the path is written twice; numbers are sizes ("16M") or, with 0x in
// front, hexadecimal.
struct HostMemoryWords {
  enum class Kind {
    CACHED,  // memory: of tmpfs, huge pages, DAX
    DEVICE,  // registers and memory of a device, which no cache may hold
  };
  kj::String path;
  uint64_t at;      // guest-physical, of the first byte
  uint64_t size;    // 0: all that the file has from `offset` on
  uint64_t offset;  // in the file
  Kind kind;
  bool isShared;  // by several guests at a time

  HostMemoryWords clone() const;
};

// `option` is named in errors. Throws TRP-rlm-060 for what is not of this form: numbers that are no
// whole pages, and regions that reach beyond 48 GiB or into the devices' addresses below 4 GiB.
HostMemoryWords parseHostMemory(kj::StringPtr option, kj::StringPtr text);

// Throws TRP-rlm-060 where the region cannot lie there.
void checkHostMemoryPlace(const HostMemoryWords& words);

// "cached memory" or "device memory".
kj::StringPtr kindName(HostMemoryWords::Kind kind);

// "0x100000000+0x10000", as errors show a region.
kj::String regionText(uint64_t address, uint64_t size);

// The part of the permitted memory that the guest's region [address, address + size) is, with the
// path and the rest of whoever permitted it. Throws TRP-rlm-062 where nobody permitted all of it,
// of this kind.
HostMemoryWords permittedPart(kj::ArrayPtr<const HostMemoryWords> permitted, uint64_t address,
                              uint64_t size, HostMemoryWords::Kind kind);

}  // namespace troupe
