#pragma once

#include <capnp/any.h>
#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>

#include "vmm/config/record_plan.h"
#include "vmm/files/trial_file.h"

namespace troupe {

// One recording while it is made: a new file that only its user can read, and the memory in which
// the processes of a device record (devices/virtio/flight_log.h). A jailed process of its own
// carries the one to the other; `troupe` looks into neither.
struct RecordingFile {
  kj::String device;
  kj::String path;
  uint64_t limitBytes;
  kj::AutoCloseFd file;
  kj::Own<TrialFile> trial;  // of it
  kj::AutoCloseFd memory;

  // The first message, before the first event: how the device is started.
  void begin(kj::StringPtr kind, kj::StringPtr program,
             kj::Maybe<capnp::AnyPointer::Reader> config) const;

  // Nothing more is taken down. The device goes on.
  void close() const;
};

// Throws a user error for a file that is there already or cannot be made.
kj::Array<RecordingFile> openRecordings(const RecordPlans& plans);

}  // namespace troupe
