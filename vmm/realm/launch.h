#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/realm.capnp.h"
#include "vmm/company/vm_start.h"
#include "vmm/config/host_memory_words.h"

// What a guest is asked for with, and what it is started from: a LaunchInfo becomes a VmStart.
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
  kj::Vector<HostMemoryWords> hostMemory;  // with their sizes; at no address two of them
};

// The capabilities of one LaunchInfo as what they carry, in their order. They come from an outside
// client: of what kind each is, and what it may be used for, nobody has looked at yet.
struct LaunchFds {
  kj::Array<kj::AutoCloseFd> directories;   // of flatNamespace
  kj::Array<kj::AutoCloseFd> blockDevices;  // their files
};

// One guest as it is asked for, by whomever: a client of a realm, `troupe run`.
struct LaunchOrder {
  kj::Own<capnp::MallocMessageBuilder> info;  // a LaunchInfo
  LaunchFds fds = {};
  // From whoever runs this process, a VmConfig: what the LaunchInfo's GuestConfig cannot say. Then
  // there is no bundle, and paths are this process's.
  kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> own = nullptr;
  Begin begin = Begin::RUNNING;
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

// The same without a bundle: `info` is what orderOf() made of `words`.
VmStart startOf(LaunchInfo::Reader info, VmConfig::Reader words);

// The guest that `words` describe, which is all `troupe run` says: its GuestConfig has every field,
// so nothing is left to a realm's defaults. Throws what planVm() throws.
LaunchOrder orderOf(VmConfig::Reader words);

}  // namespace troupe::realm
