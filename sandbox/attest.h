#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>
#include <sys/types.h>

#include <cstdint>

#include "sandbox/filter_reading.h"
#include "sandbox/profile.h"

namespace troupe::sandbox {

class ActorCgroup;

// The inodes of a process's user, pid, net, mnt, ipc, uts and cgroup namespaces, in this order.
struct NamespaceIds {
  uint64_t inodes[NAMESPACE_COUNT];
};

// Those of a process. Of one that has none any more as it ends, or is gone, all are 0.
NamespaceIds namespacesOf(pid_t pid);

// What this process is itself, for comparison with its actors. It changes only by this process's
// own doing, so one look serves for many.
struct HostView {
  NamespaceIds namespaces;
  int filters;          // seccomp filters that actors inherit
  bool sealsExecution;  // whether this kernel has memfds that cannot be executed
};

HostView viewHost();

// How far the actor has come: decides how many filters it has and which fds.
enum class Stage { START, READY, RUN };

// Bytes of a file.
struct FileRange {
  uint64_t offset;
  uint64_t size;
};

// A file, as seen by somebody who looks at mappings: which one it is, and the parts of it that this
// actor may have mapped, where not all of it is its to map.
struct SharedFile {
  uint64_t device;
  uint64_t inode;
  kj::ArrayPtr<const FileRange> ranges;  // in ascending order
};

struct AttestOptions {
  Stage stage = Stage::READY;
  // Namespaces that must not be shared with, beyond those of this process.
  kj::ArrayPtr<const NamespaceIds> siblings = nullptr;
  // Looked for anew when there is none.
  kj::Maybe<const HostView&> host = nullptr;
  // Where there is none, every memfd is taken for guest RAM.
  kj::Maybe<const SharedFile&> memory = nullptr;
  // Its journals and what else it shares, with whoever takes its place: nothing beyond these.
  kj::ArrayPtr<const SharedFile> journals = nullptr;
  // Memory of the host's that it was handed: these ranges of these files, and nothing beyond.
  kj::ArrayPtr<const SharedFile> hostMemory = nullptr;
  // What Child::readFilters() read: the instructions are compared as well, where it was let.
  kj::Maybe<const FilterReading&> filters = nullptr;
  // Child::isTraced(): then its tracer must be this process; else nobody or this process.
  bool traced = false;
  // The group it was started in, whose limits must be in force; it is in no particular one else.
  kj::Maybe<const ActorCgroup&> cgroup = nullptr;
  bool observe = false;  // fills Attestation::observations
};

// Something that was looked at, for people: ("root", "empty").
struct Observation {
  kj::String layer;
  kj::String found;
  bool agrees;  // with the profile
};

// A piece of the host's memory that a process has mapped.
struct HostMapping {
  kj::String name;  // of the file, as the kernel shows it
  uint64_t bytes;
};

struct Attestation {
  // One clear sentence for each way in which the process differs from its profile; empty when its
  // jail is closed.
  kj::Array<kj::String> differences;
  NamespaceIds namespaces;
  kj::Array<Observation> observations;
  kj::Array<HostMapping> hostMemory = nullptr;
};

// Looks from outside, in /proc, at a process that Launcher started under `profile` with its jail
// on: filters, tracer, privileges, capabilities, ids, namespaces, fds, root, limits, of all its
// threads where they can differ, and the memory it shares. What landlock holds cannot be seen so.
//
// The process should be at rest: after it has answered `ready`, say. One that is gone is a
// difference.
Attestation attest(const Profile& profile, pid_t pid, const AttestOptions& options = {});

// Throws TRP-jail-030 with the numbered differences of `name`, if there are any.
void requireAttested(kj::StringPtr name, const Attestation& attestation);

}  // namespace troupe::sandbox
