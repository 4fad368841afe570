#pragma once

#include <kj/common.h>

#include "protos/config.capnp.h"
#include "vmm/company/vm_files.h"
#include "vmm/net/tap.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/realm/launch.h"

namespace troupe::realm {

// The networks of one guest, as its realm has them: what goes into a VmConfig, and what that names.
class RealmNets {
 public:
  // Opens a link for each network of `plan`; what it cannot have is a line in `plan.notes`. Throws
  // a user error.
  RealmNets(GuestPlan& plan, const NetChoice& choice);

  // In the order of the guest: those of the launcher and guest.cfg, of troupe.json, the default
  // one. What is written names fds of this object.
  void describe(VmConfig::Builder config) const;

  // To be kept for as long as the guest lives.
  kj::Vector<kj::Own<MacLease>> releaseLeases() { return kj::mv(leases); }

 private:
  struct Link {
    kj::Maybe<kj::AutoCloseFd> tap;  // none: through the user's own sockets
    kj::String mac;                  // "": made of the name
    kj::Maybe<NetOptions::Reader> typed;
  };
  Link linkFor(kj::StringPtr mac, const NetChoice& choice);

  kj::Vector<Link> links;
  kj::Vector<kj::Own<MacLease>> leases;
};

}  // namespace troupe::realm
