#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/memory.h>
#include <kj/string.h>

#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "sandbox/testing/sample.capnp.h"

namespace troupe::sandbox::testing {

// A sample actor, started, and a connection to it.
struct Actor {
  kj::Own<Child> child;
  kj::AutoCloseFd log;  // what the actor prints
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> client;
  Sample::Client sample;
};

struct ActorOptions {
  kj::StringPtr name = "sample0";
  kj::StringPtr greeting = "good day";
  kj::Maybe<int> disk = nullptr;
  kj::Maybe<const Profile&> profile = nullptr;  // instead of the sample's
  kj::Maybe<int> cgroup = nullptr;
};

// What a test needs to start sample actors. Runs from the root of the runfiles.
class JailBench {
 public:
  explicit JailBench(LaunchFaults faults = {}, Jail jail = Jail::ON,
                     kj::Maybe<const WatchRequest&> watch = nullptr);

  Actor launch(const ActorOptions& options = {}) { return launch(jailer, options); }
  Actor launch(Launcher& launcher, const ActorOptions& options);
  // launch(), and waits until the program runs.
  Actor start(const ActorOptions& options = {});

  // An eventfd, as a capability.
  Handle::Client event();

  // Makes the sample actor do `call`; its result, or none when it has died of it.
  kj::Maybe<int64_t> tryCall(Actor& actor, kj::StringPtr call);

  int executable() const { return program; }
  kj::AsyncIoContext& io() { return context; }
  kj::WaitScope& scope() { return context.waitScope; }
  Launcher& launcher() { return jailer; }

 private:
  kj::AsyncIoContext context;
  kj::AutoCloseFd program;
  Launcher jailer;
};

// An unlinked file with `content`.
kj::AutoCloseFd fileWith(kj::StringPtr content);

// How many fds this process has open.
size_t openFdCount();

}  // namespace troupe::sandbox::testing
