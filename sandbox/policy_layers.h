#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sandbox/profile.h"
#include "sandbox/source_location.h"

namespace troupe::sandbox {

struct SourceFile;
struct PolicyFd;

// The layers of a jail besides fds, filters and limits, as a profile and its includes ask for them.
// `where` is the place that says so; line 0 where no file does and the default holds.

struct PolicyLayer {
  ProfileLayer layer;
  SourceLocation where;
};

struct PolicyCapability {
  uint32_t number;
  std::string name;  // without CAP_
  std::string reason;
  SourceLocation where;
};

struct PolicyMemory {
  ProfileMemory::Access access = ProfileMemory::NONE;
  std::string fd;
  std::vector<ProfileMemoryRange> ranges;
  SourceLocation where;
};

struct PolicyIoUringOpcode {
  uint8_t number;
  std::string name;  // without IORING_OP_
  SourceLocation where;
};

struct PolicyCgroupLimit {
  ProfileCgroupLimit::Kind kind;
  uint64_t value;
  ProfileLayer layer;
  SourceLocation where;
};

struct PolicyIoLimit {
  std::string fd;
  uint64_t readBytesPerSecond;
  uint64_t writeBytesPerSecond;
  uint64_t readsPerSecond;
  uint64_t writesPerSecond;
  ProfileLayer layer;
  SourceLocation where;
};

struct PolicyRootEntry {
  ProfileRootEntry::Kind kind;
  std::string path;
  std::string target;
  bool optional;
  SourceLocation where;
};

struct PolicyHelper {
  bool is = false;
  std::vector<PolicyRootEntry> root;
  std::string reason;
  SourceLocation where;
};

struct PolicyLayers {
  PolicyLayers();  // the defaults: the closest jail, as in sandbox/common/jail.profile

  std::array<PolicyLayer, NAMESPACE_COUNT> namespaces;
  std::array<PolicyLayer, LANDLOCK_ACCESS_COUNT> landlock;
  SourceLocation root;
  std::vector<PolicyCapability> capabilities;
  PolicyLayer mdwe;
  PolicyLayer executableSeals;
  uint32_t minimumKernel;
  SourceLocation minimumKernelAt;
  PolicyMemory memory;
  std::vector<PolicyIoUringOpcode> ioUringOpcodes;   // by number
  std::vector<PolicyIoUringOpcode> ioUringSqeFlags;  // a bit each
  std::string ioUringReason;
  std::vector<PolicyCgroupLimit> cgroupLimits;
  std::vector<PolicyIoLimit> ioLimits;
  ProfileRestart restart = {};
  SourceLocation restartAt;
  PolicyHelper helper;
};

// The layers' names: "user" … "cgroup", "FILES" … "SIGNALS", "memory_max" ….
const char* nameOf(NamespaceKind kind);
const char* nameOf(LandlockAccess access);
const char* nameOf(ProfileCgroupLimit::Kind kind);
const char* nameOf(ProfileMemory::Access access);
const char* nameOf(ProfileRootEntry::Kind kind);

// "6.12" of kernelVersion(6, 12).
std::string versionText(uint32_t version);

// "required", "since 6.3", "optional" or "off".
std::string needText(const ProfileLayer& layer);

// Reads the layers of `sources`, included files first, the profile itself last. Tells `report` each
// mistake and goes on.
PolicyLayers readLayers(const std::vector<std::unique_ptr<SourceFile>>& sources,
                        const std::vector<PolicyFd>& fds,
                        const std::function<void(const ProfileError&)>& report);

}  // namespace troupe::sandbox
