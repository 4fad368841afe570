#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/exception.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/completion.h"
#include "vmm/commands/observe_commands.h"
#include "vmm/guest/guest_command.h"
#include "vmm/serve/serve_command.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct Verb {
  kj::StringPtr name;
  ExitCode (*command)(kj::ArrayPtr<const kj::StringPtr> words);
  kj::StringPtr help;
  Completes arguments = Completes::NOTHING;
  kj::StringPtr first = ""_kj;  // of what its first argument is one
};

ExitCode completionCommand(kj::ArrayPtr<const kj::StringPtr> words);

constexpr Verb VERBS[] = {
    {"run"_kj, &runCommand, "boots a virtual machine and serves it until it ends"_kj,
     Completes::FILES},
    {"serve"_kj, &serveCommand, "serves realms of virtual machines to clients of a socket"_kj},
    {"launch"_kj, &launchCommand, "launches a guest of a bundle into a realm"_kj, Completes::FILES},
    {"serial"_kj, &serialCommand, "connects this terminal with a guest's serial port"_kj,
     Completes::VMS},
    {"console"_kj, &consoleCommand, "connects it with a guest's console"_kj, Completes::VMS},
    {"socat"_kj, &socatCommand, "connects standard input and output with a guest's vsock port"_kj,
     Completes::VMS},
    {"rpc"_kj, &rpcCommand, "speaks to `troupe serve` for a script, in JSON"_kj},
    {"demo"_kj, &demoCommand, "boots the embedded guest and shows what it did"_kj},
    {"doctor"_kj, &doctorCommand,
     "checks what this host offers, and says how to mend what it lacks"_kj},
    {"list"_kj, &listCommand, "lists your running VMs"_kj},
    {"status"_kj, &statusCommand, "shows one running VM and its actors"_kj, Completes::VMS},
    {"inspect"_kj, &inspectCommand,
     "shows what a running VM says of itself, and how its actors are jailed"_kj, Completes::VMS},
    {"graph"_kj, &graphCommand,
     "shows what each process of a running VM holds, and whether that was asked for"_kj,
     Completes::VMS},
    {"top"_kj, &topCommand, "shows what the processes of a running VM use, again and again"_kj,
     Completes::VMS},
    {"events"_kj, &eventsCommand, "prints what has happened to a running VM"_kj, Completes::VMS},
    {"pause"_kj, &pauseCommand, "halts the CPUs of a running VM"_kj, Completes::VMS},
    {"resume"_kj, &resumeCommand, "lets them go on"_kj, Completes::VMS},
    {"reset"_kj, &resetCommand, "starts the guest of a running VM anew, without asking it"_kj,
     Completes::VMS},
    {"stop"_kj, &stopCommand, "asks a guest to power off, and ends its VM if it does not"_kj,
     Completes::VMS},
    {"power-button"_kj, &powerButtonCommand, "presses a VM's power button"_kj, Completes::VMS},
    {"balloon"_kj, &balloonCommand, "shows and sets how much memory a VM's balloon holds"_kj,
     Completes::VMS},
    {"balloon-stats"_kj, &balloonStatsCommand, "shows what a guest says of its memory"_kj,
     Completes::VMS},
    {"net"_kj, &netCommand,
     "plugs a VM's network cable in or out, or has its guest announce itself"_kj, Completes::VMS},
    {"device"_kj, &deviceCommand, "gives a device of a running VM another process"_kj,
     Completes::VMS, "replace"_kj},
    {"gc"_kj, &gcCommand, "removes what VMs left behind that were killed"_kj},
    {"guest"_kj, &guestCommand, "makes bundles that guests are launched from"_kj, Completes::FILES,
     "create"_kj},
    {"disk"_kj, &diskCommand, "makes, shows, checks and resizes disks"_kj, Completes::FILES,
     "create|info|check|resize"_kj},
    {"replay"_kj, &replayCommand, "has a device see again what was recorded, without a VM"_kj,
     Completes::FILES},
    {"policy"_kj, &policyCommand, "shows, checks, compares and explains what the jails allow"_kj,
     Completes::FILES, "show|check|diff|explain|budget|import|learn|coverage"_kj},
    {"completion"_kj, &completionCommand, "prints a script that completes all this in a shell"_kj,
     Completes::NOTHING, "bash|zsh"_kj},
    {"version"_kj, &versionCommand, "prints the version"_kj},
};

ExitCode completionCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("completion",
                   "Prints a script for a shell that completes commands, options and names of VMs.",
                   "bash|zsh", "source <(troupe completion bash)");
  KJ_IF_MAYBE (shells, line.parse(words, 1)) {
    auto verbs = KJ_MAP(verb, VERBS) {
      return CompletedVerb{verb.name, verb.help, verb.arguments, verb.first};
    };
    auto shell = shells->size() == 0 ? "bash"_kj : (*shells)[0];
    auto script = completionScript(shell, verbs);
    printOut(line.json()
                 ? kj::str(JsonLine().text("shell", shell).text("script", script).render(), "\n")
                 : kj::mv(script));
  } else {
    printOut(line.help());
  }
  return ExitCode::POWERED_OFF;
}

kj::String overview() {
  kj::Vector<kj::String> lines;
  lines.add(kj::str("usage: troupe COMMAND ..."));
  lines.add(kj::str("Virtual machines played by a troupe of jailed processes.\n"));
  for (auto& verb : VERBS) {
    auto pad = kj::StringPtr("              ").slice(verb.name.size());
    lines.add(kj::str("  ", verb.name, pad, verb.help));
  }
  lines.add(kj::str("\n`troupe COMMAND --help` tells more."));
  return kj::str(kj::strArray(lines, "\n"), "\n");
}

ExitCode dispatch(kj::ArrayPtr<const kj::StringPtr> words) {
  if (words.size() == 0) {
    UserError(codes::UNKNOWN_COMMAND, kj::str("no command is given"))
        .advice("see", "troupe --help")
        .raise();
  }
  auto name = words[0];
  kj::Vector<kj::StringPtr> asked;
  if (name == "help" && words.size() > 1) {  // `troupe help disk create`
    asked.addAll(words.slice(1, words.size()));
    asked.add("--help"_kj);
    words = asked;
    name = words[0];
  }
  if (name == "--help" || name == "-h" || name == "help") {
    printOut(overview());
    return ExitCode::POWERED_OFF;
  }
  if (name == "--version") return versionCommand(nullptr);
  for (auto& verb : VERBS) {
    if (verb.name == name) return verb.command(words.slice(1, words.size()));
  }
  kj::StringPtr names[kj::size(VERBS)];
  for (size_t i = 0; i < kj::size(VERBS); i++)
    names[i] = VERBS[i].name;
  auto meant = name.startsWith("--") ? name.slice(2) : name;
  UserError(codes::UNKNOWN_COMMAND,
            kj::str("there is no command ", quote(name), didYouMean(meant, names),
                    "; the commands are ", kj::strArray(names, ", ")))
      .raise();
}

// What opens a file must never get 0, 1 or 2, which stand for something else.
void occupyStdio() {
  for (;;) {
    int fd = open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) close(fd);
    if (fd < 0 || fd > STDERR_FILENO) return;
  }
}

ExitCode run(kj::ArrayPtr<const kj::StringPtr> words) {
  auto exit = ExitCode::INTERNAL;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { exit = dispatch(words); })) {
    auto status = toStatus(*exception);
    printError(kj::str("troupe: ", kj::heapString(status.message().data(), status.message().size()),
                       "\n"));
    return exitCodeOf(status);
  }
  return exit;
}

}  // namespace

void printOut(kj::StringPtr text) {
  while (text.size() > 0) {
    ssize_t written = ::write(STDOUT_FILENO, text.begin(), text.size());
    if (written > 0) {
      text = text.slice(written);
    } else if (written < 0 && errno == EAGAIN) {
      pollfd waiting = {STDOUT_FILENO, POLLOUT, 0};
      poll(&waiting, 1, -1);
    } else if (written < 0 && errno != EINTR) {
      UserError(codes::STANDARD_OUTPUT,
                kj::str("standard output cannot be written: ", errnoText(errno)))
          .raise();
    }
  }
}

}  // namespace troupe

int main(int argc, char* argv[]) {
  // A file that may not grow (`ulimit -f`) is an error, and no reason to die.
  signal(SIGXFSZ, SIG_IGN);
  troupe::occupyStdio();
  auto words = kj::heapArrayBuilder<kj::StringPtr>(argc > 0 ? argc - 1 : 0);
  for (int i = 1; i < argc; i++)
    words.add(argv[i]);
  return static_cast<int>(troupe::run(words.finish()));
}
