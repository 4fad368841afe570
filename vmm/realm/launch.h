#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/realm.capnp.h"
#include "vmm/vm_start.h"

// What a realm starts a guest from: a LaunchInfo becomes a VmStart.
namespace troupe::realm {

// What is behind the network devices of a realm's guests.
struct NetChoice {
  enum class Kind { NONE, USER, BRIDGE, TAP };
  Kind kind = Kind::USER;
  kj::String name;  // the bridge's, or what the names of its taps begin with
};

// "user", "bridge=NAME", "tap-prefix=PREFIX" or "none", as --realm-net says it. Throws a user error
// for anything else.
NetChoice parseNetChoice(kj::StringPtr text);

// What whoever runs the realms lets their guests have.
struct RealmTerms {
  NetChoice net;
  kj::Vector<kj::String> hostMemory;  // devices and files that --permit-host-memory names
};

// The capabilities of one LaunchInfo as what they carry, in their order. They come from an outside
// client: of what kind each is, and what it may be used for, nobody has looked at yet.
struct LaunchFds {
  kj::Array<kj::AutoCloseFd> directories;   // of flatNamespace
  kj::Array<kj::AutoCloseFd> blockDevices;  // their files
};

// Where one guest has its place.
struct GuestPlace {
  kj::String name;  // of the VM, which nobody else has
  uint32_t cid;     // its vsock address: another realm's guest may have the same
  // Where its serial port and its first console are to listen (Endpoint::Kind::SOCKET).
  kj::String serialSocket;
  kj::String consoleSocket;
};

// Opens the bundle that `info` names, merges what it says (guest.cfg, troupe.json, the launcher)
// and opens everything that this names, without waiting for anybody. In the result:
//
//   plan.name, files.serial, the first of files.consoles   as `place` says
//   plan.vsock   VsockPlan with place.cid and no socket; files.vsock of openRealmVsock(place.cid)
//   nothing on stdio: a realm has no terminal
//
// Throws a user error for the first thing that does not do.
VmStart startOf(LaunchInfo::Reader info, LaunchFds fds, const GuestPlace& place,
                const RealmTerms& terms);

}  // namespace troupe::realm
