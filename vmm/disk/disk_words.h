#pragma once

#include <kj/string.h>
#include <kj/vector.h>

#include "vmm/cli/command_line.h"
#include "vmm/config/disk_plan.h"
#include "vmm/files/open_file.h"

namespace troupe {

// What the verbs of `troupe disk` are told of a disk.
struct DiskWords {
  kj::Maybe<DiskFormat> format;
  kj::Vector<BackingPlan> backing;
};

// Options of several verbs. Each throws a user error for a value that does not do.
void addFormatOption(CommandLine& line, DiskWords& words);
void addBackingOption(CommandLine& line, DiskWords& words);

// The disk that `words` and `path` describe, to be opened and locked as a VM's disk is. Throws
// unless the format was said, and for backing files of a raw disk.
DiskPlan planNamedDisk(kj::StringPtr path, DiskWords&& words, bool readOnly);

// The size of a disk: a multiple of 512 bytes. Throws a user error.
uint64_t parseDiskSize(kj::StringPtr text);

// Takes to the disk what others wrote to `file`: the process that changes an image syncs it often,
// and is not to be thought hung while the host writes gigabytes of somebody's.
void settle(const OpenFile& file);

kj::StringPtr formatName(DiskFormat format);

}  // namespace troupe
