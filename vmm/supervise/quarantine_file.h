#pragma once

#include <kj/string.h>

#include "devices/virtio/quarantine.h"

namespace troupe {

// Where the bytes of the requests go that the processes of one device died of:
// VM.DEVICE.quarantine in the run-time folder, which only its user can read, of bounded size. Text
// for people: a line of facts about each request, and its bytes in hexadecimal.
class QuarantineFile {
 public:
  // `vm` and `device`: names. Nothing is made before there is something to write.
  QuarantineFile(kj::StringPtr vm, kj::StringPtr device, const virtio::Quarantine& requests);
  KJ_DISALLOW_COPY(QuarantineFile);

  // Writes down what has come since it was last asked; what to tell the user of it, if anything
  // has. That the file is as large as it may become, or cannot be written, is told once, and
  // nothing after it: whoever broke into the device has as many requests as it likes.
  kj::Maybe<kj::String> writeNew();

  kj::StringPtr ofDevice() const { return device; }

 private:
  kj::String append(kj::ArrayPtr<const char> text);

  const virtio::Quarantine& requests;
  kj::String device;
  kj::String path;
  uint64_t seen = 0;
  bool isOver = false;
};

}  // namespace troupe
