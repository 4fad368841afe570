#include "sandbox/policy_layers.h"

namespace troupe::sandbox {

const char* nameOf(NamespaceKind kind) {
  static constexpr const char* NAMES[NAMESPACE_COUNT] = {"user", "pid", "net",   "mount",
                                                         "ipc",  "uts", "cgroup"};
  return NAMES[size_t(kind)];
}

const char* nameOf(LandlockAccess access) {
  static constexpr const char* NAMES[LANDLOCK_ACCESS_COUNT] = {
      "FILES", "TRUNCATE", "TCP", "DEVICE_IOCTLS", "ABSTRACT_SOCKETS", "SIGNALS"};
  return NAMES[size_t(access)];
}

const char* nameOf(ProfileCgroupLimit::Kind kind) {
  static constexpr const char* NAMES[] = {"memory_max", "pids_max", "cpu_max"};
  return NAMES[kind];
}

const char* nameOf(ProfileMemory::Access access) {
  static constexpr const char* NAMES[] = {"NONE", "READ_ONLY", "RANGES", "ALL"};
  return NAMES[access];
}

const char* nameOf(ProfileRootEntry::Kind kind) {
  static constexpr const char* NAMES[] = {"FILE", "FOLDER", "LINK"};
  return NAMES[kind];
}

std::string versionText(uint32_t version) {
  return std::to_string(version >> 16) + "." + std::to_string(version & 0xffff);
}

std::string needText(const ProfileLayer& layer) {
  switch (layer.need) {
    case ProfileLayer::OFF:
      return "off";
    case ProfileLayer::REQUIRED:
      return "required";
    case ProfileLayer::REQUIRED_SINCE:
      return "since " + versionText(layer.since);
    case ProfileLayer::OPTIONAL:
      return "optional";
  }
  return "";
}

}  // namespace troupe::sandbox
