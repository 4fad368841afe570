#include "vmm/config/vsock_plan.h"

#include <kj/vector.h>
#include <sys/un.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t FIRST_CID = 3;  // 0, 1 and 2 are reserved, virtio 1.2, §5.10.4
constexpr uint64_t LAST_CID = 0xfffffffe;
constexpr uint32_t LAST_PORT = 0xfffffffe;
constexpr size_t LONGEST_PATH = sizeof(sockaddr_un::sun_path) - 1;
constexpr size_t LONGEST_SUFFIX = sizeof("_4294967294") - 1;

void checkCid(uint64_t cid) {
  if (cid >= FIRST_CID && cid <= LAST_CID) return;
  UserError(codes::VSOCK_CID,
            kj::str("--vsock cid=", cid, " is out of range; a guest has a cid from ", FIRST_CID,
                    " to ", LAST_CID, ", and 2 is the host"))
      .raise();
}

void checkPath(kj::StringPtr what, kj::StringPtr path, size_t most, kj::StringPtr why) {
  bool sound = path.size() > 0 && path.size() <= most && path.findFirst('\0') == nullptr;
  if (sound) return;
  UserError(codes::VSOCK_PATH, kj::str("--vsock ", what, ": the path ", quote(path), " has ",
                                       path.size(), " bytes; it can have 1 to ", most, why))
      .raise();
}

VsockPlan::Forward planForward(kj::StringPtr text) {
  KJ_IF_MAYBE (colon, text.findFirst(':')) {
    KJ_IF_MAYBE (port, parseNumber(kj::heapString(text.begin(), *colon), LAST_PORT)) {
      auto path = kj::heapString(text.slice(*colon + 1));
      checkPath(kj::str("forward=", *port), path, LONGEST_PATH, ", as that of any unix socket");
      return {uint32_t(*port), kj::mv(path)};
    }
  }
  UserError(codes::VSOCK_OPTION, kj::str("--vsock forward=", escape(text),
                                         " is not PORT:PATH; a port is a number from 0 "
                                         "to ",
                                         LAST_PORT, ", and PATH a unix socket to be made"))
      .raise();
}

void checkUnlike(kj::StringPtr path, kj::ArrayPtr<const kj::StringPtr> others) {
  for (kj::StringPtr other : others) {
    if (path != other) continue;
    UserError(codes::VSOCK_PATH, kj::str("--vsock: ", quote(path),
                                         " is given for two sockets; each has a path of its own"))
        .raise();
  }
}

}  // namespace

VsockPlan planVsock(VsockOptions::Reader vsock) {
  VsockPlan plan;
  if (vsock.getCid() != 0) {
    checkCid(vsock.getCid());
    plan.cid = vsock.getCid();
  }
  kj::Vector<kj::StringPtr> paths;
  if (vsock.getSocket().size() > 0) {
    checkPath("socket", vsock.getSocket(), LONGEST_PATH - LONGEST_SUFFIX,
              ", so that a port fits behind it (PATH_4294967294)");
    plan.socket = kj::heapString(vsock.getSocket());
    paths.add(vsock.getSocket());
  }
  auto forwards = vsock.getForward();
  if (forwards.size() > MOST_VSOCK_FORWARDS) {
    UserError(codes::VSOCK_OPTION,
              kj::str("--vsock forwards ", forwards.size(), " ports; at most ", MOST_VSOCK_FORWARDS,
                      " can be; the socket of socket=PATH reaches all"))
        .raise();
  }
  kj::Vector<VsockPlan::Forward> planned;
  for (auto text : forwards) {
    auto forward = planForward(text);
    checkUnlike(forward.path, paths);
    planned.add(kj::mv(forward));
    paths.add(planned.back().path);
  }
  plan.forwards = planned.releaseAsArray();
  return plan;
}

kj::String hostPortPath(kj::StringPtr socket, uint32_t port) {
  return kj::str(socket, "_", port);
}

}  // namespace troupe
