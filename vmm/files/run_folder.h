#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "vmm/files/endpoint_files.h"

namespace troupe {

// The folder where the VMs of one user meet: for each NAME.sock, on which it answers, and
// NAME.lock, locked for as long as it lives. $XDG_RUNTIME_DIR/troupe, or /run/troupe for root, or
// /tmp/troupe-UID, made and checked to belong to this user alone.
kj::String runFolder();

// A running VM's place in the folder. Its files go with the object; what a killed VM left behind is
// recognised by its lock and replaced.
class VmPlace {
 public:
  // `name` empty: takes a generated one. REFUSE throws a user error if a living VM has the name.
  enum class IfTaken { REFUSE, TAKE_ANOTHER };
  explicit VmPlace(kj::StringPtr name, IfTaken otherwise = IfTaken::REFUSE);
  ~VmPlace() noexcept(false);
  KJ_DISALLOW_COPY(VmPlace);

  kj::StringPtr name() const { return vmName; }

  // Where its serial port and its console listen when they are to be found by its name.
  kj::String serialSocket() const { return kj::str(folder, "/", vmName, ".serial"); }
  kj::String consoleSocket() const { return kj::str(folder, "/", vmName, ".console"); }

  int socket() const;

 private:
  bool take(kj::StringPtr name);

  kj::String folder;
  kj::String vmName;
  kj::AutoCloseFd lock;
  kj::Maybe<kj::Own<ListeningSocket>> listening;
};

// An open and locked lock file, or none if a living process holds it. `createFlag`: O_CREAT, or 0
// to take only one that exists.
kj::Maybe<kj::AutoCloseFd> takeLock(kj::StringPtr path, int createFlag);

// The end of the name of a file with requests that processes of a device died of.
constexpr kj::StringPtr QUARANTINE = ".quarantine"_kj;

// The names of the user's living VMs, sorted. Removes what dead ones left behind, as removeDead()
// does.
kj::Array<kj::String> livingVms();

// Removes what VMs left in the folder that were killed, by their locks: nothing of one that lives,
// nor of one that begins meanwhile. ALL_OF_THEM: also what was written down for people to look at.
// The paths of what it removed.
enum class Leftovers { BUT_FOR_QUARANTINES, ALL_OF_THEM };
kj::Vector<kj::String> removeDead(Leftovers which);

// What such a path is, for people: "socket", "lock", "quarantine", "lease of a cid" or "lease of a
// MAC address".
kj::StringPtr leftoverKind(kj::StringPtr path);

}  // namespace troupe
