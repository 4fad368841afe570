#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/function.h>
#include <kj/io.h>

#include "devices/blk/disk_tool.capnp.h"
#include "vmm/config/disk_plan.h"

namespace troupe {

// An image that is open, and the files below it.
struct ToolImage {
  kj::StringPtr path;
  int disk;
  kj::ArrayPtr<const BackingPlan> backing;
  kj::ArrayPtr<const kj::AutoCloseFd> backingFds;
};

// The answer of the process: a report of the kind that was asked for. What it says may be
// anybody's, since the image may have taken the process over.
using ToolAnswer = kj::Own<capnp::MallocMessageBuilder>;

// Has the request that `fill` completes done by the jailed actor `disk_tool`, which alone parses
// what is in an image. Waits for it. `progress` is told how far of how much it has come, where that
// is known. Throws a user error: the process's own about the image, or TRP-disk-006 if it crashed,
// gave no sign of life for 20 s or answered nonsense.
ToolAnswer askDiskTool(const ToolImage& image,
                       kj::FunctionParam<void(DiskToolRequest::Builder)> fill,
                       DiskToolReport::Which expected,
                       kj::Function<void(uint64_t done, uint64_t total)> progress);

}  // namespace troupe
