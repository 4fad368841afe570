#pragma once

#include <kj/async.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/timer.h>

namespace troupe {

// The locks by which VMs of this host keep off each other's disks. A lock is the open file's, not
// the process's: it lives as long as any copy of the fd does, in whatever process, and any request
// that the kernel still has for it. io_uring ends a killed process's requests after the process is
// gone, so whoever is refused asks again for a moment. To lock what is locked already changes
// nothing.

// One file of a disk, for which messages have words.
struct LockedFile {
  int fd;
  kj::StringPtr path;  // outlives the asking
  bool readOnly;       // shared with all who only read
  bool isBacking;      // lies below an image
};

// Locks it, asleep until it is so. Throws a user error.
void lockFile(const LockedFile& file);

// The same, from a loop that must not sleep.
kj::Promise<void> lockFile(kj::Timer& timer, LockedFile file);

// Closes the last fd of a disk that was used by processes that have ended. Resolves when the kernel
// has ended their last requests too, within reason: after that nobody writes to it any more.
kj::Promise<void> releaseFile(kj::Timer& timer, kj::AutoCloseFd fd);

}  // namespace troupe
