#include "sandbox/kernel_layers.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/landlock.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "sandbox/errno_text.h"

// Linux 6.3; Debian 12's headers are older.
#ifndef PR_GET_MDWE
#define PR_GET_MDWE 66
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace troupe::sandbox {
namespace {

struct NamespaceForm {
  const char* file;  // in /proc/PID/ns
  uint64_t flag;
};

// By NamespaceKind.
constexpr NamespaceForm NAMESPACES[NAMESPACE_COUNT] = {
    {"user", CLONE_NEWUSER},    {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
    {"mnt", CLONE_NEWNS},       {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
    {"cgroup", CLONE_NEWCGROUP}};

struct AccessForm {
  const char* name;
  int abi;  // of landlock, from which on it can be denied
  uint32_t since;
};

// By LandlockAccess.
constexpr AccessForm ACCESSES[LANDLOCK_ACCESS_COUNT] = {
    {"FILES", 1, kernelVersion(5, 13)},
    {"TRUNCATE", 3, kernelVersion(6, 2)},
    {"TCP", 4, kernelVersion(6, 7)},
    {"DEVICE_IOCTLS", 5, kernelVersion(6, 10)},
    {"ABSTRACT_SOCKETS", 6, kernelVersion(6, 12)},
    {"SIGNALS", 6, kernelVersion(6, 12)}};

constexpr uint32_t MDWE_SINCE = kernelVersion(6, 3);
constexpr uint32_t EXECUTABLE_SEALS_SINCE = kernelVersion(6, 3);

uint32_t ownVersion() {
  utsname name;
  KJ_SYSCALL(uname(&name));
  unsigned major = 0, minor = 0;
  int read = sscanf(name.release, "%u.%u", &major, &minor);
  KJ_REQUIRE(read == 2 && major < 0x10000 && minor < 0x10000, "this kernel has no version",
             name.release);
  return kernelVersion(major, minor);
}

bool hasExecutableSeals() {
  int fd = memfd_create("layers", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

kj::String versionText(uint32_t version) {
  return kj::str(version >> 16, ".", version & 0xffff);
}

class Planning {
 public:
  Planning(const Profile& profile, kj::StringPtr name, const KernelLayers& kernel)
      : profile(profile), name(name), kernel(kernel) {}

  LayerPlan plan() {
    const ProfileLayers& layers = profile.layers;
    requireVersion(layers.minimumKernel);
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
      auto what = kj::str("a ", NAMESPACES[i].file, " namespace");
      bool met = meet(layers.namespaces[i], kernel.namespaces[i], what, "", "ls /proc/self/ns");
      if (met) result.namespaces |= NAMESPACES[i].flag;
    }
    for (size_t i = 0; i < LANDLOCK_ACCESS_COUNT; i++)
      result.landlock[i] = meetLandlock(layers.landlock[i], ACCESSES[i]);
    result.mdwe = meet(layers.mdwe, kernel.mdwe, "mdwe (mappings that cannot become executable)",
                       since(MDWE_SINCE), "uname -r");
    result.executableSeals = meet(layers.executableSeals, kernel.executableSeals,
                                  "executable_seals (memfds that cannot be executed)",
                                  since(EXECUTABLE_SEALS_SINCE), "uname -r");
    result.missing = missing.releaseAsArray();
    return kj::mv(result);
  }

 private:
  void requireVersion(uint32_t minimum) const {
    if (kernel.version >= minimum) return;
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-010: ", name, " is not started on Linux ",
                            versionText(kernel.version), ": its profile, ", profile.source,
                            ", is for Linux ", versionText(minimum),
                            " or later; `uname -r` shows it"));
  }

  static kj::String since(uint32_t version) { return kj::str("Linux ", versionText(version)); }

  bool meetLandlock(const ProfileLayer& layer, const AccessForm& access) {
    auto shown =
        kernel.landlockAbi == 0 ? kj::str("cat /sys/kernel/security/lsm") : kj::str("uname -r");
    auto from = since(access.since);
    if (kernel.landlockAbi == 0) {
      from = kj::str(kj::mv(from), " with landlock enabled; the kernel says ",
                     errnoText(kernel.landlockError));
    }
    return meet(layer, kernel.landlockAbi >= access.abi, kj::str("landlock: ", access.name), from,
                shown);
  }

  // Whether the jail has the layer. `from`: which kernels do; `shown`: the command that tells.
  bool meet(const ProfileLayer& layer, bool available, kj::StringPtr what, kj::StringPtr from,
            kj::StringPtr shown) {
    if (!layer.wanted() || available) return layer.wanted();
    auto text = from.size() == 0 ? kj::str(what) : kj::str(what, " (", from, ")");
    if (layer.mayBeMissing(kernel.version)) {
      missing.add(kj::mv(text));
      return false;
    }
    auto rule = layer.need == ProfileLayer::REQUIRED
                    ? kj::str("requires it")
                    : kj::str("requires it since Linux ", versionText(layer.since));
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-011: ", name, " cannot be jailed: this kernel, Linux ",
                            versionText(kernel.version), ", lacks ", text, ", and the profile ",
                            profile.source, " ", rule, "; `", shown, "` shows it"));
  }

  const Profile& profile;
  kj::StringPtr name;
  const KernelLayers& kernel;
  LayerPlan result;
  kj::Vector<kj::String> missing;
};

}  // namespace

KernelLayers viewKernel() {
  KernelLayers kernel = {};
  kernel.version = ownVersion();
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    auto path = kj::str("/proc/self/ns/", NAMESPACES[i].file);
    kernel.namespaces[i] = access(path.cStr(), F_OK) == 0;
  }
  long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  kernel.landlockAbi = abi < 1 ? 0 : abi;
  kernel.landlockError = abi < 0 ? errno : 0;
  kernel.mdwe = prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0;
  kernel.executableSeals = hasExecutableSeals();
  return kernel;
}

LayerPlan planLayers(const Profile& profile, kj::StringPtr name, const KernelLayers& kernel) {
  return Planning(profile, name, kernel).plan();
}

}  // namespace troupe::sandbox
