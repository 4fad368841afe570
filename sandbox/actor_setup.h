#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include <bitset>

#include "protos/setup.capnp.h"

namespace troupe::sandbox {

// fd numbers every actor has, whatever its profile adds.
constexpr int LOG_FD = 2;    // a pipe to `troupe`: what the actor prints, bounded by its reader
constexpr int RPC_FD = 3;    // the actor's one RPC pipe
constexpr int SETUP_FD = 4;  // the setup message; closed once read

// What a started actor was handed, and the last steps of its own jail. Main thread only.
class ActorSetup {
 public:
  // Reads and closes SETUP_FD. Throws if it holds no sound message.
  ActorSetup();

  kj::StringPtr name() const;

  // It takes the place of another process, which may still serve: what that one leaves is not to be
  // looked at before it is told so (Device.takeOver in protos/device.capnp).
  bool isSuccessor() const;

  template <typename Config>
  typename Config::Reader config() {
    return root().getConfig().template getAs<Config>();
  }

  // The number of the fd `name` (or of the index-th of an fd range). Throws when the profile has no
  // such fd, or when it is an optional one that was not handed over.
  int fd(kj::StringPtr name, kj::uint index = 0) const;

  // How many there are: of fds the launcher handed over, those; of others, what the profile says.
  // 0 when there is none.
  kj::uint fdCount(kj::StringPtr name) const;

  // What the profile lets the actor's io_urings do, for it to restrict them so: IORING_OP_…, and
  // the IOSQE_… flags that every operation has, and no others.
  kj::ArrayPtr<const kj::byte> ioUringOpcodes() const;
  kj::byte ioUringSqeFlags() const;

  // Up to `count` fds are about to arrive by RPC before they are placed: what they would meet of
  // the profile's numbers below 256 is reserved; something harmless is open there until place() or
  // enter(). Called once, when no fd has arrived yet. A number that an fd has taken nevertheless is
  // refused by place().
  void expectFds(kj::uint count);

  // Duplicates `fd` to the number the profile gives `name`, close-on-exec, and returns that number.
  // The caller closes `fd` as before. What was placed there earlier is replaced (from number 256
  // on, it must have been closed).
  int place(kj::StringPtr name, kj::uint index, int fd) const;

  // Narrows this process to the filter of `stage` ("ready", "run"; "run" without "ready" before it
  // is fine), or this thread to "thread:NAME". The first of the two gives back the numbers nothing
  // was placed at. Does nothing else where the setup has no such filter (jail off). Cannot be
  // undone. Any thread may enter its own filter; it does so before the process enters "ready".
  void enter(kj::StringPtr stage) const;

 private:
  Setup::Reader root() const;
  void checkNumbers() const;
  void growFdTable() const;
  void install(kj::StringPtr stage, capnp::Data::Reader program) const;

  kj::Array<capnp::word> words;
  kj::Own<capnp::MessageReader> message;
  // Numbers below may be met by fds on their way: four messages full of them.
  static constexpr int FIRST_NOT_RESERVED = 256;

  bool inProfile(int number) const;

  mutable std::bitset<FIRST_NOT_RESERVED> own;       // hold what place() or expectFds() put there
  mutable std::bitset<FIRST_NOT_RESERVED> reserved;  // those of them that hold a placeholder
  mutable bool narrowed = false;                     // "ready" or "run" was entered
};

}  // namespace troupe::sandbox
