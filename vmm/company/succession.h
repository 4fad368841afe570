#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/memory.h>
#include <kj/refcount.h>
#include <kj/vector.h>

#include "devices/virtio/quarantine.h"
#include "devices/virtio/vital_signs.h"
#include "vmm/actors/actor.h"
#include "vmm/policy/actor_profiles.h"

namespace troupe {

// What the processes of one device are started with, one after the other: the same program, jail,
// configuration and files, which are kept open here, and what outlives each of them: counters, and
// journals that say what was in flight.
class Succession {
 public:
  // Whether a process may be started while another one serves, and take its place later: not of a
  // device that is recorded, where one process at a time writes.
  enum class Beside { ALLOWED, NOT_ALLOWED };

  // Of a device whose first process is to get `start`, beside pipe and kept memory. `line`: the
  // name of an fd by which each process calls `troupe`, over a socket pair of its own.
  explicit Succession(const ActorStart& start, Beside beside = Beside::ALLOWED,
                      kj::Maybe<kj::StringPtr> line = nullptr);
  ~Succession() noexcept(false);
  KJ_DISALLOW_COPY(Succession);

  // The program and the profile of a process. Lives as long as the process.
  struct Build: public kj::Refcounted {
    Build(int executable, const sandbox::Profile& profile)
        : executable(executable), profile(profile) {}
    kj::AutoCloseFd ownExecutable;                  // where it is not the VM's
    kj::Maybe<kj::Own<ActorProfiles>> ownProfiles;  // the same
    kj::Maybe<kj::Own<Build>> before;               // whose profile it has
    // Those that its profile is of, where they are not the VM's.
    kj::Maybe<const ActorProfiles&> profiles() const {
      KJ_IF_MAYBE (own, ownProfiles) {
        return **own;
      }
      KJ_IF_MAYBE (one, before) {
        return (*one)->profiles();
      }
      return nullptr;
    }
    const int executable;
    const sandbox::Profile& profile;
  };

  // What the next processes are made of in place of what the last ones were; what is none stays.
  struct Change {
    kj::AutoCloseFd executable;
    kj::Maybe<kj::Own<ActorProfiles>> profiles;
  };
  kj::Own<Build> changed(Change change);
  // The one before.
  kj::Own<Build> adopt(kj::Own<Build> next) {
    auto before = kj::mv(build);
    build = kj::mv(next);
    return before;
  }

  struct Member {
    kj::Own<Build> build;
    kj::Own<Actor> actor;
    kj::AutoCloseFd brokerEnd;
    kj::String brokerObject;  // which socket that is (sandbox/fd_view.h)
    // Ends with the last request that the process has in the kernel, after the process itself.
    kj::AutoCloseFd witness;
    kj::AutoCloseFd line;  // `troupe`'s end, if there is one
    bool isReady = false;  // of one that stands beside another: to take its place
    bool waits = false;    // the same, and for the end of that one as well
  };
  // Starts a process. But for the first one of all it is a successor (protos/setup.capnp).
  // `before`: the witness of the one beside which it stands, to be waited for; -1: there is none.
  Member launch(kj::AsyncIoContext& io, ActorLauncher& launcher, int before = -1);
  Member launch(kj::AsyncIoContext& io, ActorLauncher& launcher, Build& with, int before = -1);

  bool mayStandBeside() const { return beside == Beside::ALLOWED; }

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
  const sandbox::ProfileRestart& policy() const { return build->profile.layers.restart; }

  // What its processes show of themselves. They may be in a guest's hands.
  virtio::VitalSigns signs(uint8_t place) const;
  const virtio::Quarantine& quarantine() const { return *requests; }

 private:
  struct KeptFd {
    kj::StringPtr name;
    kj::uint index;
    kj::AutoCloseFd fd;
    uint64_t memory;
  };
  void keep(const sandbox::HandedFd& fd);
  void mapJournals(int file);

  kj::Own<Build> build;
  sandbox::Part next = sandbox::Part::FIRST;
  const Beside beside;
  const kj::StringPtr argv0;
  const kj::String name;
  const kj::StringPtr kind;
  const kj::String role;
  const kj::Maybe<kj::StringPtr> line;
  kj::Vector<KeptFd> fds;
  kj::AutoCloseFd countersFile;
  kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> config;
  kj::ArrayPtr<kj::byte> mapped;  // the end of the journals' memory, to read
  kj::Maybe<virtio::Quarantine> requestsMemory;
  const virtio::Quarantine* requests = nullptr;
};

// Whether the profile says that the actor is replaced when it ends by itself.
inline bool isReplaced(const sandbox::Profile& profile) {
  return profile.layers.restart.always;
}

// Whether processes of this profile may be handed an fd of that name.
bool hasFd(const sandbox::Profile& profile, kj::StringPtr name);

// Resolves when nobody has the other end of `witness` any more.
kj::Promise<void> untilAllHaveLetGo(kj::UnixEventPort& events, int witness);

}  // namespace troupe
