#pragma once

#include <kj/async.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/timer.h>
#include <sys/stat.h>

#include "vmm/config/vm_plan.h"
#include "vmm/files/file_source.h"

namespace troupe {

// Files of the user's that a VM reads. `troupe` opens them and looks at their metadata only: what
// is in them is parsed in the actor they are passed to.

// Where the writes to a volatile disk go: a memfd as large as the disk, and sealed. `troupe` keeps
// it for as long as the VM lives and never looks into it.
struct Overlay {
  kj::AutoCloseFd memory;
  uint64_t mostBytes;  // of memory that may be used for it
};

struct OpenFile {
  kj::AutoCloseFd fd;
  uint64_t size;
  kj::Array<kj::AutoCloseFd> backing = nullptr;  // of a disk, from top to bottom; locked as it is
  kj::Maybe<Overlay> overlay = nullptr;          // of a volatile disk
};

// Opens the kernel or the initrd (`what`: "kernel"), read-only. Throws a user error unless it is a
// regular file that is not empty and fits RAM.
OpenFile openImage(kj::StringPtr what, kj::StringPtr path, uint64_t memoryBytes,
                   const FileSource& source = HostFiles());

// Opens and locks one disk for as long as the fd, or a copy of it in another process, stays open:
// many may read it, or one may write it, across all VMs of the host. A volatile disk is read.
OpenFile openDisk(const DiskPlan& disk);

// Opens all disks of a VM. Throws if two of them, backing files included, are the same file and one
// is writable, or if a chain of backing files loops. NOW sleeps while whoever has them leaves; with
// LATER lockDisks() locks them, before anybody uses them.
enum class Locking { NOW, LATER };
kj::Array<OpenFile> openDisks(kj::ArrayPtr<const DiskPlan> disks,
                              const FileSource& source = HostFiles(),
                              Locking locking = Locking::NOW);

// Locks `files`, those of `disks`, without sleeping. Both live until it has resolved.
kj::Promise<void> lockDisks(kj::Timer& timer, kj::ArrayPtr<const DiskPlan> disks,
                            kj::ArrayPtr<const OpenFile> files);

// Opens and locks the files below an image that is not there yet, as openDisks() does.
kj::Array<kj::AutoCloseFd> openBackingFiles(kj::ArrayPtr<const BackingPlan> backing);

// Gives disks back when the processes that used them have ended. Resolves, within reason, when the
// kernel has ended their last requests too: after that nobody writes to them any more.
kj::Promise<void> releaseDisks(kj::Timer& timer, kj::Array<OpenFile> disks);

kj::AutoCloseFd openKvm();

// Throws if the host has less RAM than the VM is to have.
void checkHostMemory(uint64_t memoryBytes);

// "a directory", "a socket", … for a file that is not what it should be.
kj::StringPtr fileKind(mode_t mode);

}  // namespace troupe
