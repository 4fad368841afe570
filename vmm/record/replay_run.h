#pragma once

#include <kj/string.h>

#include <cstdint>

namespace troupe {

// What a user is told of a replay.
struct ReplayReport {
  kj::String device;
  uint64_t events;
  uint64_t chains;
  kj::Maybe<kj::String> unfollowed;
  bool isCut;
  struct Difference {
    uint64_t event;
    kj::String what;
    kj::String how;
  };
  kj::Maybe<Difference> difference;
};

// Prints what is in the recording at `path`, line by line, each as {"event":"…"} if `asJson`.
void showRecording(kj::StringPtr path, bool asJson);

// Has the device of the recording at `path` do it again: `devices` is the executable to try.
//
// A jailed process reads the file, and plays the device's broker. Of the file this process reads
// nothing, and all that it is told is somebody else's words: escaped, cut, within bounds. Throws
// user errors.
ReplayReport replayRecording(kj::StringPtr path, int devices);

}  // namespace troupe
