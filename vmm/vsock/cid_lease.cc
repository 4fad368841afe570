#include "vmm/vsock/cid_lease.h"

#include <fcntl.h>
#include <unistd.h>

#include "vmm/files/run_folder.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t FIRST_CID = 3;
constexpr uint64_t MOST_TRIED = 1 << 16;  // more VMs than a host has

kj::String pathOf(kj::StringPtr folder, uint64_t cid) {
  return kj::str(folder, "/cid-", cid);
}

}  // namespace

CidLease::CidLease(kj::Maybe<uint64_t> wanted) : folder(runFolder()) {
  KJ_IF_MAYBE (cid, wanted) {
    if (take(*cid)) return;
    UserError(codes::VSOCK_CID_TAKEN,
              kj::str("--vsock cid=", *cid,
                      ": another running VM has this cid; leave cid= out to "
                      "get one that is free"))
        .advice("see", "troupe list")
        .raise();
  }
  for (uint64_t cid = FIRST_CID; cid < FIRST_CID + MOST_TRIED; cid++)
    if (take(cid)) return;
  UserError(codes::VSOCK_CID_TAKEN, kj::str("--vsock: all cids from ", FIRST_CID, " to ",
                                            FIRST_CID + MOST_TRIED - 1, " are taken"))
      .advice("see", kj::str("ls ", folder))
      .raise();
}

bool CidLease::take(uint64_t cid) {
  KJ_IF_MAYBE (fd, takeLock(pathOf(folder, cid), O_CREAT)) {
    lock = kj::mv(*fd);
    number = cid;
    return true;
  }
  return false;
}

CidLease::~CidLease() noexcept(false) {
  if (number != 0) unlink(pathOf(folder, number).cStr());
}

}  // namespace troupe
