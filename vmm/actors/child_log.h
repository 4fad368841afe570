#pragma once

#include <kj/async-io.h>
#include <kj/string.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include <cstdint>
#include <deque>

namespace troupe {

// What one actor prints on its log pipe. The actor may be in a guest's hands: lines are cut,
// control characters escaped, and only so many are passed on.
//
// Until live() the lines are kept, so that an actor's last words can go into the error about its
// death; from then on they go to this process's standard error as they come.
class ChildLog {
 public:
  // Lines that begin with `noise` are dropped.
  ChildLog(kj::Own<kj::AsyncInputStream> pipe, kj::StringPtr actor, kj::Timer& timer,
           kj::StringPtr noise = nullptr);
  KJ_DISALLOW_COPY(ChildLog);

  // Passes on what is kept and what will come.
  void live();

  // Drops whatever comes from now on: an actor whose VM is over may complain of broken pipes.
  void mute() { isMuted = true; }

  // Resolves when the actor and whoever else held the pipe has closed it.
  kj::Promise<void> onEnd() { return ended.addBranch(); }

  // The lines kept, at most the last few; takes them out.
  kj::Vector<kj::String> lastWords();

 private:
  kj::Promise<void> read();
  void take(kj::ArrayPtr<const char> bytes);
  void finishLine();
  bool mayPrint();

  kj::Own<kj::AsyncInputStream> pipe;
  kj::String actor;
  kj::Timer& timer;
  kj::String noise;
  bool isLive = false;
  bool isMuted = false;
  kj::Vector<char> line;
  std::deque<kj::String> kept;
  kj::TimePoint windowStart;
  uint32_t printedInWindow = 0;
  uint32_t suppressed = 0;
  char buffer[1024];
  kj::ForkedPromise<void> ended;
};

// Writes to standard error, whole and also when it is non-blocking; gives up after a second of a
// full pipe.
void printError(kj::StringPtr text);

// From now on printError() writes {"message": "…"} for each of its texts.
void sayInJson();

// What is JSON already.
void printErrorAsIs(kj::StringPtr text);

}  // namespace troupe
