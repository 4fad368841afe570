#pragma once

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <kj/array.h>
#include <kj/function.h>
#include <kj/io.h>

namespace troupe::hostile {

// A connection on which any message at all can be said, in any order: the words are those of
// rpc.capnp, and nobody here keeps to its rules.
class RawClient {
 public:
  explicit RawClient(kj::StringPtr path);
  KJ_DISALLOW_COPY(RawClient);

  // One message. False when the other side has hung up, or has not read for `patienceMs`.
  bool say(kj::Function<void(capnp::rpc::Message::Builder)> fill,
           kj::ArrayPtr<const int> fds = nullptr);
  bool sayBytes(kj::ArrayPtr<const kj::byte> bytes, kj::ArrayPtr<const int> fds = nullptr);

  enum class Heard { MESSAGE, HUNG_UP, NOTHING };

  // Reads one message; `look` sees it.
  Heard hear(kj::Function<void(capnp::rpc::Message::Reader)> look = [](auto) {});

  // Reads until question `id` is answered, or the other side hangs up. What is said in between is
  // passed over.
  Heard hearAnswer(
      uint32_t id, kj::Function<void(capnp::rpc::Return::Reader)> look = [](auto) {});

  // Reads what has been said, and waits for nothing.
  void hearWhatIsThere();

  // Ordinary words, in questions with ids of the caller's.
  bool bootstrap(uint32_t id);
  bool finish(uint32_t id);

  int patienceMs = 60000;

 private:
  bool wait(short events);

  kj::AutoCloseFd fd;
};

// The pointer field `field` of what question `id` will be answered with.
void setPromised(capnp::rpc::MessageTarget::Builder target, uint32_t id,
                 kj::ArrayPtr<const uint16_t> fields = nullptr);

}  // namespace troupe::hostile
