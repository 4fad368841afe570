#include <signal.h>

#include "vmm/child_log.h"
#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/control_client.h"
#include "vmm/serve/guest_line.h"
#include "vmm/serve/relay.h"
#include "vmm/vm_words.h"

// What a user does at the lines of a guest of a realm: reads and types.
namespace troupe {

namespace {

ExitCode attach(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words,
                realm::GuestLine which) {
  line.epilog("What it said last is shown first. Ctrl-] leaves a terminal; twice, it is typed.");
  KJ_IF_MAYBE (asked, parseVmWords(line, words, false)) {
    {
      auto io = kj::setupAsyncIo();
      ControlClient client(io, asked->name);  // says so if no VM has this name
    }
    auto socket = realm::connectToLine(asked->name, which);
    signal(SIGPIPE, SIG_IGN);
    if (relay(socket, Detachable::YES)) printError("\ntroupe: detached; the guest goes on\n");
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode serialCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("serial", "Connects this terminal with the serial port of a realm's guest.",
                   "VM");
  return attach(line, words, realm::GuestLine::SERIAL);
}

ExitCode consoleCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("console", "Connects this terminal with the console of a realm's guest.", "VM");
  return attach(line, words, realm::GuestLine::CONSOLE);
}

}  // namespace troupe
