#include "devices/console/serial_main.h"

#include <kj/async-io.h>
#include <kj/debug.h>
#include <unistd.h>

#include "devices/console/open_backend.h"
#include "devices/console/uart_relay.h"
#include "sandbox/actor_setup.h"
#include "sandbox/last_words.h"

namespace troupe::console {

namespace {

[[noreturn]] void serve() {
  sandbox::ActorSetup setup;
  auto io = kj::setupAsyncIo();
  Line line(io.provider->getTimer());
  auto ports = setup.config<ConsoleConfig>().getPorts();
  KJ_REQUIRE(ports.size() == 1, "the serial port is one", ports.size());
  auto backend = openBackend(io.unixEventPort, line, setup, ports[0]);
  UartRelay relay(io.unixEventPort, line, setup.fd("uart"));
  setup.enter("ready");
  setup.enter("run");
  relay.run().then([&]() { return line.output.drained(LAST_WORDS_WAIT); }).wait(io.waitScope);
  // Not through the destructors: threads may sit in a read that nobody ends.
  _exit(0);
}

}  // namespace

int serialMain() {
  prepareProcess();
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([]() { serve(); })) {
    sandbox::sayLastWords("the serial port ends", *exception);
  }
  _exit(1);
}

}  // namespace troupe::console
