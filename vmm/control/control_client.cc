#include "vmm/control/control_client.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/config/vm_plan.h"
#include "vmm/files/run_folder.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 1024 * 1024;  // a VM with every disk and their spares, read twice
  options.nestingLimit = 16;
  return options;
}

[[noreturn]] void noSuchVm(kj::StringPtr name) {
  auto names = livingVms();
  auto choices = KJ_MAP(name, names)->kj::StringPtr {
    return name;
  };
  UserError error(codes::NO_SUCH_VM,
                  kj::str("no VM named ", quote(name), " is running", didYouMean(name, choices)));
  if (names.size() > 0) {
    auto shown = choices.slice(0, kj::min(choices.size(), size_t(10)));
    error.advice("running", kj::strArray(shown, ", "));
  }
  error.advice("see", "troupe list").raise();
}

kj::AutoCloseFd connectTo(kj::StringPtr name) {
  checkVmName(name);
  auto path = kj::str(runFolder(), "/", name, ".sock");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) noSuchVm(name);
  memcpy(address.sun_path, path.begin(), path.size());
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd fd(raw);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
  int error = errno;
  if (error == ENOENT || error == ECONNREFUSED) noSuchVm(name);
  UserError(codes::CONTROL_SOCKET, kj::str("VM ", quote(name), " cannot be reached at ",
                                           quote(path), ": ", errnoText(error)))
      .advice("see", kj::str("ls -l ", path))
      .raise();
}

}  // namespace

ControlClient::ControlClient(kj::AsyncIoContext& io, kj::StringPtr name)
    : io(io),
      name(kj::heapString(name)),
      stream(io.lowLevelProvider->wrapSocketFd(connectTo(name))),
      network(*stream, capnp::rpc::twoparty::Side::CLIENT, boundedReading()),
      rpc(capnp::makeRpcClient(network)) {}

Vm::Client ControlClient::vm() {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId).castAs<Vm>();
}

void ControlClient::silent(kj::Duration patience) {
  UserError(codes::VM_SILENT,
            kj::str("VM ", quote(name), " did not answer within ", patience / kj::SECONDS, " s"))
      .raise();
}

}  // namespace troupe
