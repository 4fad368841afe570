#include <signal.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/control/control_client.h"
#include "vmm/serve/guest_line.h"
#include "vmm/serve/relay.h"
#include "vmm/words/json_line.h"

// What a user does at the lines of a guest of a realm: reads and types.
namespace troupe {

namespace {

constexpr kj::StringPtr LINES = "print what is heard as JSON, {\"base64\":\"…\"} a piece"_kj;

ExitCode attach(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words,
                realm::GuestLine which) {
  line.epilog("What it said last is shown first. Ctrl-] leaves a terminal; twice, it is typed.");
  KJ_IF_MAYBE (asked, parseVmWords(line, words)) {
    {
      auto io = kj::setupAsyncIo();
      ControlClient client(io, asked->name);  // says so if no VM has this name
    }
    auto socket = realm::connectToLine(asked->name, which);
    signal(SIGPIPE, SIG_IGN);
    if (asked->json) {
      auto name = which == realm::GuestLine::SERIAL ? "serial"_kj : "console"_kj;
      printOut(kj::str(JsonLine().text("name", asked->name).text("attached", name).render(), "\n"));
    }
    auto end = relay(socket, Detachable::YES, asked->json ? Written::AS_JSON : Written::AS_IT_IS);
    if (asked->json && end != RelayEnd::OUTPUT_GONE) {
      auto why = end == RelayEnd::DETACHED ? "detached"_kj : "closed"_kj;
      printOut(kj::str(JsonLine().text("ended", why).render(), "\n"));
    } else if (end == RelayEnd::DETACHED) {
      printError("\ntroupe: detached; the guest goes on\n");
    }
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode serialCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("serial", "Connects this terminal with the serial port of a realm's guest.",
                   "VM", "troupe serial r0-3", LINES);
  return attach(line, words, realm::GuestLine::SERIAL);
}

ExitCode consoleCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("console", "Connects this terminal with the console of a realm's guest.", "VM",
                   "troupe console r0-3", LINES);
  return attach(line, words, realm::GuestLine::CONSOLE);
}

}  // namespace troupe
