#include "devices/console/open_backend.h"

#include <kj/debug.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include "devices/console/detach.h"
#include "devices/console/pty_backend.h"
#include "devices/console/socket_backend.h"
#include "devices/console/stdio_backend.h"

namespace troupe::console {

namespace {

// The process, as a StdioBackend sees it.
class SetupHost final: public StdioBackend::Host {
 public:
  explicit SetupHost(const sandbox::ActorSetup& setup) : setup(setup) {}
  void detach() override { _exit(DETACH_STATUS); }
  void confineThread(kj::StringPtr name) override { setup.enter(kj::str("thread:", name)); }

 private:
  const sandbox::ActorSetup& setup;
};

kj::Own<Backend> onStreams(kj::UnixEventPort& events, Line& line, sandbox::ActorSetup& setup,
                           kj::Maybe<int> in, ConsolePort::Reader port) {
  auto host = kj::heap<SetupHost>(setup);
  uint32_t number = port.getFdIndex();
  kj::Own<Backend> backend =
      kj::heap<StdioBackend>(events, line, in, setup.fd("out", number), *host, number);
  return backend.attach(kj::mv(host));
}

}  // namespace

void prepareProcess() {
  // SIGTTIN, SIGTTOU: a background job's terminal answers EIO instead of stopping the process,
  // which as the first of its pid namespace could not even be stopped and would try for ever.
  for (int number : {SIGPIPE, SIGXFSZ, SIGTTIN, SIGTTOU}) {
    KJ_ASSERT(signal(number, SIG_IGN) != SIG_ERR, number);
  }
  // A second heap would need mmap and mprotect under the serving filter.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_MAX, 0);
}

kj::Own<Backend> openBackend(kj::UnixEventPort& events, Line& line, sandbox::ActorSetup& setup,
                             ConsolePort::Reader port) {
  auto fd = [&](kj::StringPtr name) { return setup.fd(name, port.getFdIndex()); };
  auto kind = port.getBackend();
  switch (kind) {
    case ConsolePort::Backend::STDIO:
      return onStreams(events, line, setup, setup.fd("in"), port);
    case ConsolePort::Backend::FILE:
      return onStreams(events, line, setup, nullptr, port);
    case ConsolePort::Backend::PTY:
      return kj::heap<PtyBackend>(events, line, fd("pty"));
    case ConsolePort::Backend::SOCKET:
      return kj::heap<SocketBackend>(
          events, line, fd("listen"),
          port.getReplay() ? SocketBackend::Replay::ON : SocketBackend::Replay::OFF);
  }
  KJ_FAIL_REQUIRE("the configuration names no back end that exists", static_cast<uint16_t>(kind));
}

}  // namespace troupe::console
