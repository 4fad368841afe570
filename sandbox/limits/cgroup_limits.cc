#include "sandbox/limits/cgroup_limits.h"

#include <kj/vector.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sandbox/limits/small_file.h"

namespace troupe::sandbox {
namespace {

constexpr uint64_t PERIOD_US = 100000;

uint64_t wholePages(uint64_t bytes) {
  uint64_t page = sysconf(_SC_PAGESIZE);
  return (bytes + page - 1) / page * page;
}

// "8:16": the disk that holds the file, or whose partition holds it. Limits are for whole disks.
kj::Maybe<kj::String> diskBehind(int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) return nullptr;
  dev_t device = S_ISBLK(info.st_mode) ? info.st_rdev : info.st_dev;
  if (major(device) == 0) return nullptr;
  auto number = kj::str(major(device), ":", minor(device));
  auto folder = kj::str("/sys/dev/block/", number);
  if (access(kj::str(folder, "/partition").cStr(), F_OK) != 0) return kj::mv(number);
  KJ_IF_MAYBE (whole, readSmallFile(kj::str(folder, "/../dev"))) {
    KJ_IF_MAYBE (end, whole->findFirst('\n')) {
      return kj::heapString(whole->slice(0, *end));
    }
  }
  return nullptr;
}

kj::String orMax(uint64_t value) {
  return value == 0 ? kj::str("max") : kj::str(value);
}

bool isFile(const Profile& profile, kj::StringPtr name) {
  for (size_t i = 0; i < profile.fdCount; i++) {
    if (name == profile.fds[i].name) return kj::StringPtr(profile.fds[i].kind) == "file";
  }
  return false;
}

void addMemory(kj::Vector<CgroupSetting>& settings, const Profile& profile,
               const ProfileCgroupLimit& limit, uint64_t guestMemory,
               kj::ArrayPtr<const HandedFd> fds) {
  bool maps = profile.layers.memory.access != ProfileMemory::NONE;
  uint64_t shared = maps ? costOfGuestMemory(guestMemory) : 0;
  shared += costOfFilesInMemory(profile, fds);
  settings.add(CgroupSetting{Controller::MEMORY, "memory_max", kj::str("memory.max"),
                             kj::str(wholePages(limit.value + shared)), &limit.layer, nullptr});
  settings.add(CgroupSetting{Controller::MEMORY, "memory_max", kj::str("memory.swap.max"),
                             kj::str(wholePages(shared)), &limit.layer, nullptr});
}

CgroupSetting ioSetting(const ProfileIoLimit& limit, int fd) {
  CgroupSetting setting = {Controller::IO, "io", kj::str("io.max"), nullptr, &limit.layer, nullptr};
  KJ_IF_MAYBE (disk, diskBehind(fd)) {
    setting.value =
        kj::str(*disk, " rbps=", orMax(limit.readBytesPerSecond),
                " wbps=", orMax(limit.writeBytesPerSecond), " riops=", orMax(limit.readsPerSecond),
                " wiops=", orMax(limit.writesPerSecond));
  } else {
    setting.unfit = kj::str("the file \"", limit.fd, "\" is on no disk of its own");
  }
  return setting;
}

}  // namespace

uint64_t costOfGuestMemory(uint64_t guestMemory) {
  return guestMemory + guestMemory / 32;
}

uint64_t costOfFilesInMemory(const Profile& profile, kj::ArrayPtr<const HandedFd> fds) {
  uint64_t cost = 0;
  for (const HandedFd& fd : fds) {
    cost += fd.memory;
    struct statfs system;
    struct stat info;
    if (!isFile(profile, fd.name) || fstatfs(fd.fd, &system) < 0 || fstat(fd.fd, &info) < 0)
      continue;
    if (system.f_type == TMPFS_MAGIC && S_ISREG(info.st_mode)) cost += info.st_size;
  }
  return cost;
}

uint32_t controllersOf(const Profile& profile) {
  uint32_t wanted = profile.layers.ioLimitCount > 0 ? setOf(Controller::IO) : 0;
  for (size_t i = 0; i < profile.layers.cgroupLimitCount; i++) {
    switch (profile.layers.cgroupLimits[i].kind) {
      case ProfileCgroupLimit::MEMORY_MAX:
        wanted |= setOf(Controller::MEMORY);
        break;
      case ProfileCgroupLimit::PIDS_MAX:
        wanted |= setOf(Controller::PIDS);
        break;
      case ProfileCgroupLimit::CPU_MAX:
        wanted |= setOf(Controller::CPU);
        break;
    }
  }
  return wanted;
}

kj::Array<CgroupSetting> cgroupSettings(const Profile& profile, uint64_t guestMemory,
                                        kj::ArrayPtr<const HandedFd> fds) {
  kj::Vector<CgroupSetting> settings;
  for (size_t i = 0; i < profile.layers.cgroupLimitCount; i++) {
    const ProfileCgroupLimit& limit = profile.layers.cgroupLimits[i];
    switch (limit.kind) {
      case ProfileCgroupLimit::MEMORY_MAX:
        addMemory(settings, profile, limit, guestMemory, fds);
        break;
      case ProfileCgroupLimit::PIDS_MAX:
        settings.add(CgroupSetting{Controller::PIDS, "pids_max", kj::str("pids.max"),
                                   kj::str(limit.value), &limit.layer, nullptr});
        break;
      case ProfileCgroupLimit::CPU_MAX:
        settings.add(CgroupSetting{Controller::CPU, "cpu_max", kj::str("cpu.max"),
                                   kj::str(limit.value * PERIOD_US / 100, " ", PERIOD_US),
                                   &limit.layer, nullptr});
        break;
    }
  }
  for (size_t i = 0; i < profile.layers.ioLimitCount; i++) {
    const ProfileIoLimit& limit = profile.layers.ioLimits[i];
    for (const HandedFd& fd : fds) {
      if (fd.name == limit.fd) settings.add(ioSetting(limit, fd.fd));
    }
  }
  return settings.releaseAsArray();
}

uint64_t cgroupLimit(const Profile& profile, ProfileCgroupLimit::Kind kind) {
  for (size_t i = 0; i < profile.layers.cgroupLimitCount; i++) {
    const ProfileCgroupLimit& limit = profile.layers.cgroupLimits[i];
    if (limit.kind == kind) return limit.value;
  }
  return 0;
}

}  // namespace troupe::sandbox
