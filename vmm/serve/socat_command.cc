#include <kj/async-io.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/socket.h>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/error_codes.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/serve/daemon.h"
#include "vmm/serve/relay.h"
#include "vmm/serve/serve_command.h"
#include "vmm/user_error.h"

// A program of the host's that talks to one of a guest's: standard input and output over vsock.
namespace troupe {

namespace {

using namespace realm;

struct Found {
  uint32_t realm;
  uint32_t cid;
};

Found find(Daemon& daemon, kj::StringPtr vm) {
  bool isFound = false;
  Found found = {0, 0};
  daemon.await(daemon.manager().listGuestsRequest().send().then([&](auto&& answer) {
    for (auto guest : answer.getGuests()) {
      if (guest.getName() != vm) continue;
      found = {guest.getRealm(), guest.getCid()};
      isFound = true;
    }
  }));
  if (isFound) return found;
  UserError(codes::NO_SUCH_GUEST, kj::str("no guest of a realm is called ", quote(vm)))
      .advice("see", "troupe list")
      .raise();
}

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
  CommandLine line("socat",
                   "Connects standard input and output with a vsock port of a realm's guest.",
                   "VM PORT");
  line.add({"socket", "PATH", "where `troupe serve` listens", false,
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
    auto guest = find(daemon, given[0]);
    auto connect = daemon.manager().connectRequest();
    connect.setId(guest.realm);
    auto endpoint = connect.send().getRealm().getHostVsockEndpointRequest().send().getEndpoint();
    auto request = endpoint.connectRequest();
    request.setCid(guest.cid);
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
  relay(ours, Detachable::NO);
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
