#include "vmm/commands/lasting_client.h"

#include <kj/debug.h>

#include "vmm/words/error_codes.h"

namespace troupe {

namespace {

// Between two connections, the second of which was of no use either.
constexpr kj::Duration PAUSE = 100 * kj::MILLISECONDS;

}  // namespace

LastingClient::LastingClient(kj::AsyncIoContext& io, kj::StringPtr name)
    : io(io), name(kj::heapString(name)), client(kj::heap<ControlClient>(io, name)) {}

// False when no VM has the name any more.
bool LastingClient::connect() {
  client = nullptr;
  KJ_IF_MAYBE (failure,
               kj::runCatchingExceptions([&]() { client = kj::heap<ControlClient>(io, name); })) {
    if (failure->getDescription().startsWith(codes::NO_SUCH_VM.text)) return false;
    kj::throwFatalException(kj::mv(*failure));
  }
  return true;
}

bool LastingClient::tryWith(kj::FunctionParam<void(ControlClient&)> use) {
  for (;;) {
    if (!client->isConnected() && !connect()) return false;
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { use(*client); })) {
      if (failure->getType() != kj::Exception::Type::DISCONNECTED) {
        kj::throwFatalException(kj::mv(*failure));
      }
    } else {
      return true;
    }
    io.provider->getTimer().afterDelay(PAUSE).wait(io.waitScope);
    if (!connect()) return false;
  }
}

}  // namespace troupe
