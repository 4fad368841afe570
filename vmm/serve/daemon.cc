#include "vmm/serve/daemon.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/files/run_folder.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

kj::String usualPath() {
  return kj::str(runFolder(), "/realms");
}

[[noreturn]] void refuse(kj::StringPtr path, kj::StringPtr why) {
  UserError(codes::NO_DAEMON, kj::str("no `troupe serve` listens at ", quote(path), ": ", why))
      .advice("start", "troupe serve")
      .raise();
}

kj::AutoCloseFd connectTo(kj::StringPtr path) {
  struct stat info;
  if (stat(path.cStr(), &info) != 0) refuse(path, errnoText(errno));
  if (!S_ISSOCK(info.st_mode)) refuse(path, "it is no socket");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) refuse(path, errnoText(ENAMETOOLONG));
  memcpy(address.sun_path, path.begin(), path.size());
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd fd(raw);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
  refuse(path, errnoText(errno));
}

}  // namespace

Daemon::Daemon(kj::AsyncIoContext& io, kj::StringPtr given)
    : io(io), connection(io, connectTo(given.size() > 0 ? kj::str(given) : usualPath())) {}

kj::Maybe<kj::Own<Daemon>> Daemon::ifThere(kj::AsyncIoContext& io) {
  if (access(usualPath().cStr(), F_OK) != 0) return nullptr;
  kj::Maybe<kj::Own<Daemon>> found;
  // A socket whose daemon was killed answers nobody.
  kj::runCatchingExceptions([&]() { found = kj::heap<Daemon>(io, nullptr); });
  return found;
}

Realm::Client Daemon::find(kj::StringPtr realm, uint32_t& id) {
  bool isFound = false;
  kj::Vector<kj::String> known;
  auto number = parseNumber(realm, UINT32_MAX);
  auto list = await(manager().listRequest().send().then([](auto&& answer) {
    return kj::heap<capnp::Response<Manager::ListResults>>(kj::mv(answer));
  }));
  for (auto one : list->getEnvironments()) {
    bool isIt = one.getLabel() == realm;
    KJ_IF_MAYBE (asked, number) {
      isIt = isIt || one.getId() == *asked;
    }
    if (isIt && !isFound) id = one.getId();
    isFound = isFound || isIt;
    known.add(one.getLabel().size() == 0 ? kj::str(one.getId())
                                         : kj::str(one.getId(), " ", quote(one.getLabel(), 40)));
  }
  if (isFound) {
    auto request = manager().connectRequest();
    request.setId(id);
    return request.send().getRealm();
  }
  UserError error(codes::NO_SUCH_REALM, kj::str("there is no realm ", quote(realm)));
  if (known.size() > 0) error.advice("realms", kj::strArray(known, ", "));
  error.advice("make one", kj::str("troupe serve --keep ", shellWord(realm))).raise();
}

void Daemon::silent(kj::Duration patience) {
  UserError(codes::VM_SILENT,
            kj::str("`troupe serve` did not answer within ", patience / kj::SECONDS, " s"))
      .raise();
}

void Daemon::refused(kj::Exception&& failure) {
  if (failure.getType() == kj::Exception::Type::DISCONNECTED) {
    UserError(codes::NO_DAEMON, kj::str("`troupe serve` hung up, and may have said why"))
        .advice("see", "its standard error")
        .raise();
  }
  kj::throwFatalException(passedOn(failure, codes::NO_DAEMON, "`troupe serve` did not do it"));
}

}  // namespace troupe::realm
