#include "vmm/serve/daemon.h"

#include <errno.h>
#include <unistd.h>

#include "vmm/error_codes.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/run_folder.h"
#include "vmm/user_error.h"

namespace troupe::realm {

namespace {

kj::String usualPath() {
  return kj::str(runFolder(), "/realms");
}

kj::StringPtr checkThere(kj::StringPtr path) {
  if (access(path.cStr(), F_OK) == 0) return path;
  UserError(codes::NO_DAEMON,
            kj::str("no `troupe serve` listens at ", quote(path), ": ", errnoText(errno)))
      .advice("start", "troupe serve")
      .raise();
}

}  // namespace

Daemon::Daemon(kj::AsyncIoContext& io, kj::StringPtr given)
    : io(io), connection(io, checkThere(given.size() > 0 ? kj::str(given) : usualPath())) {}

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
  error.advice("make one", kj::str("troupe serve --keep ", escape(realm, 40))).raise();
}

void Daemon::silent(kj::Duration patience) {
  UserError(codes::VM_SILENT,
            kj::str("`troupe serve` did not answer within ", patience / kj::SECONDS, " s"))
      .raise();
}

void Daemon::refused(kj::Exception&& failure) {
  kj::throwFatalException(
      wrapActorError(failure, codes::NO_DAEMON, kj::str("`troupe serve` did not do it"))
          .toException());
}

}  // namespace troupe::realm
