#include "vmm/serve/serve_command.h"

#include <sys/resource.h>

#include "client/realm_connection.h"
#include "sandbox/fair_loop.h"
#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/signals.h"
#include "vmm/files/endpoint_files.h"
#include "vmm/files/host_memory_file.h"
#include "vmm/files/run_folder.h"
#include "vmm/serve/realm_door.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct ServeWords {
  kj::String socket;
  kj::Vector<kj::StringPtr> kept;
  realm::RealmTerms terms;
  sandbox::Jail jail = sandbox::Jail::ON;
  kj::Maybe<kj::StringPtr> profileDir;
  bool json = false;
};

// None when --help was asked for, and printed.
kj::Maybe<ServeWords> parse(kj::ArrayPtr<const kj::StringPtr> words) {
  ServeWords said;
  CommandLine line("serve",
                   "Serves realms: groups of guests that know each other, launched by clients of a "
                   "socket.",
                   "", "troupe serve --keep lab",
                   "print where it listens and why it ends, as JSON");
  line.add({"socket", "PATH", "where it listens; `realms` in the run-time folder unless given",
            false, [&](kj::StringPtr path) { said.socket = kj::str(path); }});
  line.add({"keep", "LABEL", "a realm of this name that lives on without clients", true,
            [&](kj::StringPtr label) {
              realm::checkText("label of a realm", label);
              for (auto earlier : said.kept) {
                if (earlier != label) continue;
                UserError(codes::GIVEN_TWICE, kj::str("--keep ", quote(label), " is given twice"))
                    .raise();
              }
              said.kept.add(label);
            }});
  line.add({"realm-net", "user|bridge=NAME|tap-prefix=P|none",
            "what is behind the networks of guests; user unless given", false,
            [&](kj::StringPtr text) { said.terms.net = realm::parseNetChoice(text); }});
  line.add({"permit-host-memory", "FILE,at=ADDRESS", "memory of the host's that guests may ask for",
            true, [&](kj::StringPtr text) { addPermitted(said.terms.hostMemory, text); }});
  line.add({"jail", "on|off", "jail every actor, on unless given; off is for debugging only", false,
            [&](kj::StringPtr text) {
              said.jail = parseOnOff("--jail", text) ? sandbox::Jail::ON : sandbox::Jail::OFF;
            }});
  line.add({"profile-dir", "DIR", "folder of sandbox profiles that replace those built in", false,
            [&](kj::StringPtr path) { said.profileDir = path; }});
  line.epilog(
      "FILE,at=ADDRESS[,size=SIZE][,offset=OFFSET][,device][,shared]: a guest that asks for memory "
      "there, with the\npolicy `cached` (or `device`), gets that part of FILE; one guest at a "
      "time, unless it is shared. An address\nleads to one file.");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return nullptr;
  }
  said.json = line.json();
  return kj::mv(said);
}

// A guest takes some fifty.
void allowManyFds() {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
}

void serve(const ServeWords& words) {
  captureSignals();
  allowManyFds();
  auto io = sandbox::setupFairIo();
  auto folder = runFolder();
  auto path = words.socket.size() > 0 ? kj::str(words.socket) : kj::str(folder, "/realms");
  ListeningSocket socket(path, "troupe serve --socket", codes::SERVE_SOCKET);
  Stage::Choices choices;
  choices.jail = words.jail;
  choices.profileDir = words.profileDir;
  choices.hostsMany = true;
  Stage stage(io, choices);
  realm::Environments realms(io, stage);
  for (auto& label : words.kept)
    realms.create(label, realm::Environment::Kept::YES, realm::copyOf(words.terms));
  realm::RealmDoor door(io, socket.fd(), stage, realms, words.terms);

  auto stopping = kj::newPromiseAndFulfiller<kj::String>();
  StopSignals stops(io.unixEventPort, [&](kj::StringPtr name) {
    stopping.fulfiller->fulfill(kj::str("stopped: `troupe serve` got ", name));
  });
  if (words.jail == sandbox::Jail::OFF) {
    printError("troupe: no actor is jailed (--jail off): whoever breaks into one is you\n");
  }
  if (words.json) {
    printOut(kj::str(JsonLine().text("socket", path).render(), "\n"));
  } else {
    printError(kj::str("troupe: realms are served at ", path, "\n"));
  }
  auto reason = stopping.promise.wait(io.waitScope);
  realms.end(reason).wait(io.waitScope);
  if (words.json) printOut(kj::str(JsonLine().text("ended", reason).render(), "\n"));
}

}  // namespace

ExitCode serveCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  KJ_IF_MAYBE (said, parse(words)) {
    serve(*said);
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
