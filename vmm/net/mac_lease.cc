#include "vmm/net/mac_lease.h"

#include <fcntl.h>
#include <unistd.h>

#include "vmm/files/run_folder.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

MacLease::MacLease(kj::StringPtr link, kj::StringPtr mac)
    : path(kj::str(runFolder(), "/mac-", link, "-", mac)) {
  KJ_IF_MAYBE (fd, takeLock(path, O_CREAT)) {
    lock = kj::mv(*fd);
    return;
  }
  UserError(codes::MAC_TAKEN,
            kj::str("another guest on the bridge ", quote(link), " has the MAC address ", mac,
                    "; each guest of a link has one of its own"))
      .advice("use",
              "\"net\" with an address of its own and \"default-net\": \"false\", or a "
              "realm whose guests each have a link of their own: user")
      .raise();
}

MacLease::~MacLease() noexcept(false) {
  unlink(path.cStr());
}

}  // namespace troupe
