#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/memory.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

#include <map>
#include <unordered_map>
#include <vector>

#include "sandbox/profile.h"
#include "sandbox/watch/call_record.h"
#include "sandbox/watch/coverage_variable.h"
#include "sandbox/watch/watched_profile.h"

namespace troupe::sandbox {

// What to watch for, and the folder that gets the records.
struct WatchRequest {
  WatchMode mode;
  kj::String folder;

  // Whether filters are weaker for it.
  bool onlyReports() const { return mode != WatchMode::COUNT; }
};

// The request of COVERAGE_VARIABLE; none when it is not set.
kj::Maybe<WatchRequest> coverageFromEnvironment();

// Writes down the system calls at which watched filters stop the actors of one launcher, in a file
// of its own in the folder. Bounded in memory: what is full is written.
class CallWatch {
 public:
  // Throws TRP-jail-050 where the folder cannot be written.
  explicit CallWatch(const WatchRequest& request);
  ~CallWatch() noexcept(false);
  KJ_DISALLOW_COPY(CallWatch);

  // `profile`, which must outlive this object, as it is to be enforced instead; itself when it is
  // already that.
  const Profile& watched(const Profile& profile);

  // `thread` of `process`, an actor with a profile of watched(), is stopped by its filter.
  // `executable`: the path of its program.
  void see(const Profile& watched, kj::StringPtr executable, pid_t process, pid_t thread);

  // `process` has ended.
  void forget(pid_t process) { images.erase(process); }

 private:
  // Where an executable's code lies in a process.
  struct Image {
    uint64_t base, begin, end;
  };
  struct Key {
    const Profile* profile;
    uint32_t filter;
    bool mainThread;
    uint64_t number, instruction;
    uint64_t arguments[6];
    bool operator==(const Key& other) const;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };

  const Image& imageOf(pid_t process);
  std::vector<uint64_t> stackOf(pid_t process, const Image& image, uint64_t instruction,
                                uint64_t stackPointer);
  void flush();

  WatchMode mode;
  kj::String path;
  kj::AutoCloseFd file;
  std::map<const Profile*, kj::Own<WatchedProfile>> profiles;
  std::unordered_map<pid_t, Image> images;
  std::unordered_map<Key, CallRecord, Hash> records;
};

}  // namespace troupe::sandbox
