#pragma once

#include <capnp/serialize.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/recording.capnp.h"

namespace troupe {

// The messages of a recording in memory that nobody changes, checked as far as their framing goes:
// each has one segment and lies wholly inside. What is in them is anybody's.
class EventList {
 public:
  EventList() = default;
  KJ_DISALLOW_COPY(EventList);
  EventList(EventList&&) = default;
  EventList& operator=(EventList&&) = default;

  // Takes the messages at the beginning of `words` and says how many words they were; what follows
  // is no whole message, or not yet. Events are copied.
  size_t take(kj::ArrayPtr<const capnp::word> words);

  size_t size() const { return messages.size(); }

  // Calls `look` with event `index`. Throws kj exceptions for one whose insides make no sense.
  template <typename Look>
  auto with(size_t index, Look&& look) const {
    capnp::FlatArrayMessageReader reader(messages[index], limits());
    return look(reader.getRoot<FlightEvent>());
  }

  kj::ArrayPtr<const capnp::word> message(size_t index) const { return messages[index]; }
  static capnp::ReaderOptions limits();

 private:
  kj::Vector<kj::Array<capnp::word>> messages;
};

// A recording as `troupe run --record` wrote it, or as somebody else did.
class RecordingReader {
 public:
  // Reads all of `path`. Throws a user error (TRP-rec-006) for a file that cannot be read, is too
  // large, or is no recording of a version that is known.
  explicit RecordingReader(kj::StringPtr path);
  // The same of a file that is open and has so many bytes; `path` is for messages.
  RecordingReader(kj::StringPtr path, int file, uint64_t bytes);
  // The same of what is in it.
  RecordingReader(kj::StringPtr path, kj::ArrayPtr<const kj::byte> content);
  KJ_DISALLOW_COPY(RecordingReader);

  Recording::Reader head() { return reader->getRoot<Recording>(); }
  const EventList& events() const { return list; }
  // The file ends in the middle of an event, as after a crash of the host.
  bool isCut() const { return cut; }

  // Has `work` done on what is in the file, where everything that makes no sense is one user error.
  template <typename Work>
  auto checked(Work&& work) const {
    kj::Maybe<decltype(work())> result;
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { result = work(); })) {
      refuse(*failure);
    }
    return kj::mv(KJ_ASSERT_NONNULL(result));
  }

 private:
  // What has a code of its own is not about the file.
  [[noreturn]] void refuse(const kj::Exception& why) const;
  [[noreturn]] void refuse(kj::StringPtr why) const;
  void read(int file, uint64_t bytes);
  void parse(uint64_t bytes);

  kj::String path;
  kj::Array<capnp::word> words;
  kj::Own<capnp::FlatArrayMessageReader> reader;
  EventList list;
  bool cut = false;
};

}  // namespace troupe
