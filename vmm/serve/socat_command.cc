#include <kj/async-io.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/socket.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/serve/daemon.h"
#include "vmm/serve/relay.h"
#include "vmm/serve/serve_command.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

// A program of the host's that talks to one of a guest's: standard input and output over vsock.
namespace troupe {

namespace {

using namespace realm;

kj::StringPtr wordsFor(VsockStatus status) {
  switch (status) {
    case VsockStatus::ALREADY_BOUND:
      return "the port is in use"_kj;
    case VsockStatus::NO_RESOURCES:
      return "no port of the host is free"_kj;
    default:
      return "the guest does not listen there"_kj;
  }
}

}  // namespace

ExitCode socatCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  kj::StringPtr socket;
  CommandLine line(
      "socat", "Connects standard input and output with a vsock port of a realm's guest.",
      "VM PORT", "troupe socat r0-3 22", "print what is heard as JSON, {\"base64\":\"…\"} a piece");
  line.add({"socket", "PATH", "where `troupe serve` listens, unless it is the usual place", false,
            [&](kj::StringPtr path) { socket = path; }});
  auto arguments = line.parse(words, 2);
  if (arguments == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto& given = KJ_ASSERT_NONNULL(arguments);
  if (given.size() != 2) {
    UserError(codes::ARGUMENTS, kj::str("which VM, and which port? give both")).raise();
  }
  auto port = parseNumber(given[1], UINT32_MAX - 1);
  if (port == nullptr) {
    UserError(codes::ARGUMENTS, kj::str(quote(given[1]), " is no port; expected 0 to 4294967294"))
        .raise();
  }
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd ours(fds[0]), theirs(fds[1]);
  // The stream outlives the connection that asked for it.
  {
    auto io = kj::setupAsyncIo();
    Daemon daemon(io, socket);
    // Of the guest and not of its realm, which this command is not to keep alive.
    auto find = daemon.manager().connectToGuestRequest();
    find.setName(given[0]);
    auto found = find.send();
    auto endpoint = found.getController().getHostVsockEndpointRequest().send().getEndpoint();
    uint32_t cid = daemon.await(found.then([](auto&& answer) { return answer.getCid(); }));
    auto request = endpoint.connectRequest();
    request.setCid(cid);
    request.setPort(uint32_t(KJ_ASSERT_NONNULL(port)));
    request.setSocket(client::handleOf(kj::mv(theirs)));
    auto status = daemon.await(
        request.send().then([](auto&& answer) { return answer.getStatus(); }), 30 * kj::SECONDS);
    if (status != VsockStatus::OK) {
      UserError(codes::NOT_REACHED, kj::str("port ", given[1], " of VM ", quote(given[0]),
                                            " is not reached: ", wordsFor(status)))
          .raise();
    }
  }
  signal(SIGPIPE, SIG_IGN);
  if (line.json()) {
    JsonLine begun;
    begun.text("name", given[0]).text("attached", "vsock").number("port", KJ_ASSERT_NONNULL(port));
    printOut(kj::str(begun.render(), "\n"));
  }
  auto end = relay(ours, Detachable::NO, line.json() ? Written::AS_JSON : Written::AS_IT_IS);
  if (line.json() && end == RelayEnd::CLOSED) printOut("{\"ended\":\"closed\"}\n");
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
