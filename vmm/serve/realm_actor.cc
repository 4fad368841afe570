#include "vmm/serve/realm_actor.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>

#include "vmm/serve/balloon_actor.h"
#include "vmm/serve/guest_actor.h"
#include "vmm/serve/manager_actor.h"
#include "vmm/serve/vsock_endpoint_actor.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::uint MOST_DIRECTORIES = 16;
constexpr kj::uint MOST_BLOCK_DEVICES = MOST_DISKS;

// A copy of the fd that `handle` carries; the client keeps its own.
kj::Promise<kj::AutoCloseFd> fdOf(Session& session, Handle::Client handle, kj::String what) {
  auto got = session.inTime(handle, handle.getFd());
  return got.then([handle = kj::mv(handle), what = kj::mv(what)](kj::Maybe<int> fd) {
    KJ_IF_MAYBE (number, fd) {
      int copy;
      KJ_SYSCALL(copy = fcntl(*number, F_DUPFD_CLOEXEC, 3));
      return kj::AutoCloseFd(copy);
    }
    UserError(codes::HANDLE_EMPTY,
              kj::str("the capability for ", what, " carries no file descriptor"))
        .raise();
  });
}

kj::Promise<LaunchFds> fdsOf(Session& session, LaunchInfo::Reader info) {
  auto directories = info.getFlatNamespace().getDirectories();
  auto disks = info.getBlockDevices();
  if (directories.size() > MOST_DIRECTORIES || disks.size() > MOST_BLOCK_DEVICES) {
    UserError(codes::REALM_TEXT, kj::str("a launch names ", directories.size(), " directories and ",
                                         disks.size(), " block devices; expected at most ",
                                         MOST_DIRECTORIES, " and ", MOST_BLOCK_DEVICES))
        .raise();
  }
  kj::Vector<kj::Promise<kj::AutoCloseFd>> all;
  for (kj::uint i = 0; i < directories.size(); i++)
    all.add(fdOf(session, directories[i], kj::str("directory ", i)));
  for (kj::uint i = 0; i < disks.size(); i++)
    all.add(fdOf(session, disks[i].getFile(), kj::str("block device ", i)));
  return kj::joinPromises(all.releaseAsArray())
      .then([first = directories.size()](kj::Array<kj::AutoCloseFd> fds) {
        kj::Vector<kj::AutoCloseFd> directories, disks;
        for (size_t i = 0; i < fds.size(); i++)
          (i < first ? directories : disks).add(kj::mv(fds[i]));
        return LaunchFds{directories.releaseAsArray(), disks.releaseAsArray()};
      });
}

}  // namespace

RealmActor::RealmActor(Environment& realm, kj::Own<Session> session)
    : realm(realm), session(kj::mv(session)) {}

kj::Promise<void> RealmActor::launchInstance(LaunchInstanceContext context) {
  context.allowCancellation();  // who promises a file may never hand it over
  auto info = context.getParams().getLaunchInfo();
  auto label = info.hasLabel() ? info.getLabel() : info.getUrl();
  checkText("label of a guest", label);
  return fdsOf(*session, info).then([this, context, label = kj::str(label)](LaunchFds fds) mutable {
    LaunchOrder order{kj::heap<capnp::MallocMessageBuilder>(), kj::mv(fds)};
    order.info->setRoot(context.getParams().getLaunchInfo());
    context.releaseParams();
    auto room = session->reserve();  // for its controller, before there is a guest
    auto instance = realm.launch(label, kj::mv(order));
    auto results = context.getResults();
    results.setCid(instance->cid());
    results.setController(kj::heap<GuestActor>(kj::mv(instance), kj::addRef(realm.sockets()),
                                               kj::addRef(*session), kj::mv(room)));
  });
}

kj::Promise<void> RealmActor::listInstances(ListInstancesContext context) {
  realm::listInstances(realm, context.getResults().initInstances(realm.guests().size()));
  return kj::READY_NOW;
}

kj::Promise<void> RealmActor::connectToInstance(ConnectToInstanceContext context) {
  auto& instance = require(context.getParams().getCid());
  context.getResults().setController(kj::heap<GuestActor>(
      kj::addRef(instance), kj::addRef(realm.sockets()), kj::addRef(*session), session->reserve()));
  return kj::READY_NOW;
}

kj::Promise<void> RealmActor::connectToBalloon(ConnectToBalloonContext context) {
  auto& instance = require(context.getParams().getCid());
  context.getResults().setController(
      kj::heap<BalloonActor>(kj::addRef(instance), kj::addRef(*session)));
  return kj::READY_NOW;
}

kj::Promise<void> RealmActor::getHostVsockEndpoint(GetHostVsockEndpointContext context) {
  context.getResults().setEndpoint(
      kj::heap<VsockEndpointActor>(kj::addRef(realm.sockets()), kj::addRef(*session)));
  return kj::READY_NOW;
}

Instance& RealmActor::require(uint32_t cid) {
  KJ_IF_MAYBE (found, realm.find(cid)) {
    return *found;
  }
  UserError(codes::NO_SUCH_GUEST, kj::str("realm ", realm.id(), " has no guest with cid ", cid))
      .raise();
}

void listInstances(Environment& realm, capnp::List<InstanceInfo>::Builder list) {
  kj::uint i = 0;
  for (auto& one : realm.guests()) {
    list[i].setCid(one.second->cid());
    list[i].setLabel(one.second->label());
    ++i;
  }
}

}  // namespace troupe::realm
