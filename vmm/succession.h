#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include "vmm/actor.h"

namespace troupe {

// What the processes of one device are started with, one after the other: the same program, jail,
// configuration and files, which are kept open here, and what outlives each of them: counters, and
// journals that say what was in flight.
class Succession {
 public:
  // Of a device whose first process is to get `start`, beside pipe and kept memory. `line`: the
  // name of an fd by which each process calls `troupe`, over a socket pair of its own.
  explicit Succession(const ActorStart& start, kj::Maybe<kj::StringPtr> line = nullptr);
  KJ_DISALLOW_COPY(Succession);

  struct Member {
    kj::Own<Actor> actor;
    kj::AutoCloseFd brokerEnd;
    kj::String brokerObject;  // which socket that is (sandbox/fd_view.h)
    // Ends with the last request that the process has in the kernel, after the process itself.
    kj::AutoCloseFd witness;
    kj::AutoCloseFd line;  // `troupe`'s end, if there is one
  };
  // Starts a process. The one before is reaped.
  Member launch(kj::AsyncIoContext& io, ActorLauncher& launcher);

  // What its processes count, in memory that can only be read.
  int counters() const { return countersFile; }
  // What the next processes get in place of the fd they have by this name.
  void exchange(kj::StringPtr name, kj::AutoCloseFd fd);

  // What the next process is told; a change is for all that come.
  template <typename Config>
  typename Config::Builder configuration() {
    return KJ_REQUIRE_NONNULL(config, "this device is told nothing")->template getRoot<Config>();
  }

  // How often it may be replaced, and within how many seconds.
  const sandbox::ProfileRestart& policy() const { return profile.layers.restart; }

 private:
  struct KeptFd {
    kj::StringPtr name;
    kj::uint index;
    kj::AutoCloseFd fd;
    uint64_t memory;
  };
  void keep(const sandbox::HandedFd& fd);

  const sandbox::Profile& profile;
  const int executable;
  const kj::StringPtr argv0;
  const kj::String name;
  const kj::StringPtr kind;
  const kj::String role;
  const kj::Maybe<kj::StringPtr> line;
  kj::Vector<KeptFd> fds;
  kj::AutoCloseFd countersFile;
  kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> config;
};

// Whether the profile says that the actor is replaced when it ends by itself.
inline bool isReplaced(const sandbox::Profile& profile) {
  return profile.layers.restart.restarts > 0;
}

// Whether processes of this profile may be handed an fd of that name.
bool hasFd(const sandbox::Profile& profile, kj::StringPtr name);

// Resolves when nobody has the other end of `witness` any more.
kj::Promise<void> untilAllHaveLetGo(kj::UnixEventPort& events, int witness);

}  // namespace troupe
