#include <kj/async-io.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/serve/daemon.h"
#include "vmm/serve/rpc_session.h"
#include "vmm/serve/serve_command.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_LINE = 4 << 20;

// Reads lines from standard input, wherever that leads: the loop cannot watch a file, or /dev/null.
class Lines {
 public:
  Lines(kj::AsyncIoContext& io, realm::RpcSession& session) : session(session) {
    struct stat info;
    KJ_SYSCALL(fstat(STDIN_FILENO, &info));
    bool canBeWatched = S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) || isatty(STDIN_FILENO);
    if (canBeWatched) input = io.lowLevelProvider->wrapInputFd(STDIN_FILENO);
  }

  kj::Promise<void> untilEnd() {
    return readSome().then([this](size_t bytes) -> kj::Promise<void> {
      if (bytes == 0) {
        if (line.size() > 0) session.take(line);
        return kj::READY_NOW;
      }
      for (char c : kj::arrayPtr(buffer, bytes))
        take(c);
      return untilEnd();
    });
  }

 private:
  kj::Promise<size_t> readSome() {
    KJ_IF_MAYBE (stream, input) {
      return (*stream)->tryRead(buffer, 1, sizeof(buffer));
    }
    ssize_t bytes;
    KJ_SYSCALL(bytes = read(STDIN_FILENO, buffer, sizeof(buffer)));
    return size_t(bytes);
  }

  void take(char c) {
    if (c != '\n') {
      line.add(c);
      if (line.size() <= LONGEST_LINE) return;
      UserError(codes::RPC_REQUEST,
                kj::str("a line has more than ", LONGEST_LINE, " bytes; that is no request"))
          .raise();
    }
    if (line.size() > 0) session.take(line);
    line.clear();
  }

  realm::RpcSession& session;
  kj::Maybe<kj::Own<kj::AsyncInputStream>> input;
  kj::Vector<char> line;
  char buffer[16 << 10];
};

}  // namespace

ExitCode rpcCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  kj::StringPtr socket;
  CommandLine line("rpc",
                   "Speaks to `troupe serve` for a script: one JSON object a line, both ways.", "",
                   "echo '{\"id\":1,\"on\":0,\"call\":\"list\"}' | troupe rpc", "changes nothing");
  line.add({"socket", "PATH", "where `troupe serve` listens, unless it is the usual place", false,
            [&](kj::StringPtr path) { socket = path; }});
  line.epilog("What can be said is in docs/realms.md.");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto io = kj::setupAsyncIo();
  realm::Daemon daemon(io, socket);
  realm::RpcSession session(io, daemon.manager(),
                            [](kj::StringPtr text) { printOut(kj::str(text, "\n")); });
  Lines lines(io, session);
  auto gone = daemon.onDisconnect().then(
      []() { UserError(codes::NO_DAEMON, kj::str("`troupe serve` has gone")).raise(); });
  lines.untilEnd()
      .then([&]() { return session.onIdle(); })
      .exclusiveJoin(kj::mv(gone))
      .wait(io.waitScope);
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
