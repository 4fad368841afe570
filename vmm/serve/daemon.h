#pragma once

#include <kj/async-io.h>

#include "client/realm_connection.h"
#include "vmm/cli/command_line.h"

namespace troupe::realm {

// The daemon which a command of `troupe` speaks to: that of --socket, or this user's own.
class Daemon {
 public:
  // Throws TRP-rlm-039 when none listens there. `path` empty: the usual place.
  Daemon(kj::AsyncIoContext& io, kj::StringPtr path);

  // None where no daemon listens in the usual place.
  static kj::Maybe<kj::Own<Daemon>> ifThere(kj::AsyncIoContext& io);

  Manager::Client manager() { return connection.manager(); }
  kj::Promise<void> onDisconnect() { return connection.onDisconnect(); }

  // The realm with this label or number. Throws TRP-rlm-033.
  Realm::Client find(kj::StringPtr realm, uint32_t& id);

  // Waits for an answer: what the daemon refuses in its own words, with its code, is thrown on.
  // Throws a user error when it says nothing within `patience`.
  template <typename T>
  T await(kj::Promise<T> answer, kj::Duration patience = PATIENCE) {
    auto silence =
        io.provider->getTimer().afterDelay(patience).then([patience]() -> T { silent(patience); });
    return explained(kj::mv(answer)).exclusiveJoin(kj::mv(silence)).wait(io.waitScope);
  }

  // The same without an end to the patience.
  template <typename T>
  T awaitLong(kj::Promise<T> answer) {
    return explained(kj::mv(answer)).wait(io.waitScope);
  }

  static constexpr kj::Duration PATIENCE = 10 * kj::SECONDS;

 private:
  template <typename T>
  static kj::Promise<T> explained(kj::Promise<T> answer) {
    return answer.catch_([](kj::Exception&& failure) -> T { refused(kj::mv(failure)); });
  }
  [[noreturn]] static void silent(kj::Duration patience);
  [[noreturn]] static void refused(kj::Exception&& failure);

  kj::AsyncIoContext& io;
  client::RealmConnection connection;
};

}  // namespace troupe::realm
