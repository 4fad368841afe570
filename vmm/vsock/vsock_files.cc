#include "vmm/vsock/vsock_files.h"

#include "vmm/words/error_codes.h"

namespace troupe {

VsockFiles openVsock(const VsockPlan& plan) {
  VsockFiles files;
  auto lease = kj::heap<CidLease>(plan.cid);
  files.cid = lease->cid();
  files.lease = kj::mv(lease);
  KJ_IF_MAYBE (path, plan.socket) {
    files.socket = kj::heap<ListeningSocket>(*path, kj::str("--vsock socket"), codes::VSOCK_SOCKET);
  }
  files.forwards = KJ_MAP(forward, plan.forwards) {
    return kj::heap<ListeningSocket>(forward.path, kj::str("--vsock forward=", forward.port),
                                     codes::VSOCK_SOCKET);
  };
  return files;
}

VsockFiles openRealmVsock(uint64_t cid) {
  VsockFiles files;
  files.cid = cid;
  return files;
}

}  // namespace troupe
