#include "sandbox/limits/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/errno_text.h"
#include "sandbox/limits/small_file.h"

namespace troupe::sandbox {
namespace {

constexpr kj::StringPtr VM_PREFIX = "vm-"_kj;

// Others remove what they take for stale while we make ours; each can be in the way once.
constexpr int MOST_TRIES = 16;

// A group is busy until the kernel has taken its last process out of it, which may be a moment
// after that was reaped.
constexpr int MOST_REMOVALS = 50;

// What the kernel needs for a VM's groups themselves, which counts as the VM's: some 100 KiB for
// each on a machine with many processors. With it, an actor meets its own limit before the VM's.
constexpr uint64_t COST_OF_GROUPS = 16 << 20;

uint32_t runningKernel() {
  utsname name;
  KJ_SYSCALL(uname(&name));
  uint32_t major = 0, minor = 0;
  sscanf(name.release, "%u.%u", &major, &minor);
  return kernelVersion(major, minor);
}

kj::Array<kj::String> foldersIn(kj::StringPtr path) {
  kj::Vector<kj::String> names;
  DIR* dir = opendir(path.cStr());
  if (dir == nullptr) return names.releaseAsArray();
  KJ_DEFER(closedir(dir));
  while (auto* entry = readdir(dir)) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.') names.add(kj::str(entry->d_name));
  }
  return names.releaseAsArray();
}

// Whether the group is gone.
bool removeGroup(kj::StringPtr path) {
  for (int i = 0; i < MOST_REMOVALS; i++) {
    if (rmdir(path.cStr()) == 0 || errno == ENOENT) return true;
    if (errno != EBUSY) return false;
    timespec pause = {0, 1000000};
    nanosleep(&pause, nullptr);
  }
  return false;
}

bool removeVm(kj::StringPtr path) {
  // Nobody is left; if somebody is, it is a process of this VM that outlived who watches it.
  writeSmallFile(kj::str(path, "/cgroup.kill"), "1");
  for (kj::StringPtr actor : foldersIn(path))
    removeGroup(kj::str(path, "/", actor));
  return removeGroup(path);
}

// The open and locked folder, or none when a living process holds it or it is not there any more.
kj::Maybe<kj::AutoCloseFd> lockFolder(kj::StringPtr path) {
  int fd = open(path.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  kj::AutoCloseFd folder(fd);
  if (flock(folder, LOCK_EX | LOCK_NB) != 0) return nullptr;
  struct stat ours, there;
  if (fstat(folder, &ours) != 0 || stat(path.cStr(), &there) != 0 || ours.st_ino != there.st_ino) {
    return nullptr;
  }
  return kj::mv(folder);
}

kj::Vector<kj::String> removeStale(kj::StringPtr ground, kj::StringPtr base) {
  kj::Vector<kj::String> removed;
  for (kj::StringPtr name : foldersIn(base)) {
    if (!name.startsWith(VM_PREFIX)) continue;
    auto path = kj::str(base, "/", name);
    KJ_IF_MAYBE (lock, lockFolder(path)) {
      (void)lock;
      if (removeVm(path)) removed.add(kj::mv(path));
    }
  }
  // Nobody lives in them, or they stay.
  for (kj::StringPtr name : foldersIn(ground)) {
    if (!name.startsWith(LEAF_PREFIX)) continue;
    auto path = kj::str(ground, "/", name);
    if (rmdir(path.cStr()) == 0) removed.add(kj::mv(path));
  }
  return removed;
}

// Lets groups in `folder` have the controllers; which of them they have then.
uint32_t enable(kj::StringPtr folder, uint32_t controllers) {
  auto path = kj::str(folder, "/cgroup.subtree_control");
  uint32_t enabled = 0;
  for (Controller one : CONTROLLERS) {
    if ((controllers & setOf(one)) == 0) continue;
    KJ_IF_MAYBE (text, readSmallFile(path)) {
      // What is there already may not be ours to write.
      bool has = hasWord(*text, nameOf(one));
      if (has || writeSmallFile(path, kj::str("+", nameOf(one))) == 0) enabled |= setOf(one);
    }
  }
  return enabled;
}

kj::String trimmed(kj::String text) {
  size_t size = text.size();
  while (size > 0 && text[size - 1] == '\n')
    size--;
  return kj::heapString(text.slice(0, size));
}

bool hasLine(kj::StringPtr text, kj::StringPtr line) {
  return strstr(kj::str("\n", text, "\n").cStr(), kj::str("\n", line, "\n").cStr()) != nullptr;
}

}  // namespace

kj::Vector<kj::String> removeDeadGroups(const CgroupView& view) {
  uint32_t all = 0;
  for (Controller one : CONTROLLERS)
    all |= setOf(one);
  auto found = findCgroupGround(all, view);
  if (found.is<CgroupShortage>()) return {};
  auto land = found.get<CgroupGround>().folder();
  auto base = kj::str(land, "/troupe");
  auto removed = removeStale(land, base);
  if (rmdir(base.cStr()) == 0) removed.add(kj::mv(base));
  return removed;
}

VmCgroups::VmCgroups(kj::StringPtr vm, uint32_t wanted, uint64_t guestMemory,
                     const CgroupView& view)
    : guestBytes(guestMemory), asked(wanted != 0) {
  if (wanted == 0) return;
  auto found = findCgroupGround(wanted, view);
  if (found.is<CgroupShortage>()) {
    shortage = kj::mv(found.get<CgroupShortage>());
    return;
  }
  auto& land = ground.emplace(kj::mv(found.get<CgroupGround>()));
  controllers = land.controllers;
  base = kj::str(land.folder(), "/troupe");
  if (land.lived && !moveToLeaf()) return;
  for (int i = 0; i < MOST_TRIES; i++) {
    if (make(kj::str(VM_PREFIX, vm, "-", getpid(), i == 0 ? kj::str() : kj::str("-", i)))) break;
  }
  if (folder.size() == 0) moveBack();
  if (folder.size() > 0 && controllers != wanted) {
    CgroupGround given = {kj::str(land.mount), nullptr, kj::str(land.group), controllers, false};
    shortage = shortageOf(given, wanted);
  }
}

// Tries to make the VM's group under this name. Where nothing was made, `shortage` tells why.
bool VmCgroups::make(kj::StringPtr name) {
  auto land = KJ_ASSERT_NONNULL(ground).folder();
  auto fail = [&](kj::StringPtr what) {
    shortage = {kj::str(what, ": ", errnoText(errno)), kj::str("ls -ld ", land),
                kj::str("give this user a group to divide: systemd-run --user --scope -p "
                        "Delegate=yes troupe …")};
    return false;
  };
  if (mkdir(base.cStr(), 0755) != 0 && errno != EEXIST) {
    return fail(kj::str("the control group ", base, " cannot be made"));
  }
  removeStale(land, base);
  controllers = enable(land, controllers);
  auto path = kj::str(base, "/", name);
  if (mkdir(path.cStr(), 0755) != 0) {
    return fail(kj::str("the control group ", path, " cannot be made"));
  }
  KJ_IF_MAYBE (fd, lockFolder(path)) {
    lock = kj::mv(*fd);
  } else {
    return fail(kj::str("the control group ", path, " cannot be locked"));
  }
  controllers = enable(base, controllers);
  controllers = enable(path, controllers);
  folder = kj::mv(path);
  return true;
}

bool VmCgroups::moveToLeaf() {
  auto land = KJ_ASSERT_NONNULL(ground).folder();
  auto path = kj::str(land, "/", LEAF_PREFIX, getpid());
  int error = 0;
  if (mkdir(path.cStr(), 0755) != 0 && errno != EEXIST) error = errno;
  if (error == 0) error = writeSmallFile(kj::str(path, "/cgroup.procs"), kj::str(getpid()));
  if (error == 0) {
    leaf = kj::mv(path);
    return true;
  }
  rmdir(path.cStr());
  shortage = {kj::str("troupe cannot move to the control group ", path, ": ", errnoText(error)),
              kj::str("ls -ld ", land, "; cat ", land, "/cgroup.procs"),
              kj::str("systemd-run --user --scope -p Delegate=yes troupe …")};
  return false;
}

// As it was found: this process in the ground itself, and no controllers below it.
void VmCgroups::moveBack() {
  if (leaf.size() == 0) return;
  auto land = KJ_ASSERT_NONNULL(ground).folder();
  for (Controller one : CONTROLLERS) {
    writeSmallFile(kj::str(land, "/cgroup.subtree_control"), kj::str("-", nameOf(one)));
  }
  if (writeSmallFile(kj::str(land, "/cgroup.procs"), kj::str(getpid())) == 0) removeGroup(leaf);
}

VmCgroups::~VmCgroups() noexcept(false) {
  if (folder.size() == 0) return;
  removeVm(folder);
  lock = nullptr;
  if (rmdir(base.cStr()) == 0) moveBack();
}

kj::Maybe<kj::Own<ActorCgroup>> VmCgroups::add(kj::StringPtr actor, const Profile& profile,
                                               kj::ArrayPtr<const HandedFd> fds) {
  if (!asked) return nullptr;
  auto wanted = cgroupSettings(profile, guestBytes, fds);
  if (wanted.size() == 0) {
    grow(actor, 0, false);
    return nullptr;
  }
  kj::String path = makeActorFolder(actor);
  kj::Vector<CgroupSetting> inForce;
  KJ_ON_SCOPE_FAILURE(if (path.size() > 0) removeGroup(path));
  bool limited = false;
  for (auto& setting : wanted) {
    auto reason = path.size() == 0 ? kj::StringPtr(shortage.reason) : putInForce(path, setting);
    if (reason.size() > 0) {
      miss(actor, setting, reason);
      continue;
    }
    limited |= setting.file == "memory.max";
    // A kernel without swap, or one that does not count it, has no such file.
    if (access(kj::str(path, "/", setting.file).cStr(), F_OK) == 0) inForce.add(kj::mv(setting));
  }
  if (path.size() == 0) return nullptr;
  grow(actor,
       cgroupLimit(profile, ProfileCgroupLimit::MEMORY_MAX) + costOfFilesInMemory(profile, fds),
       limited);
  auto& land = KJ_ASSERT_NONNULL(ground);
  auto shown = kj::str(land.mountRoot, path.slice(land.mount.size()));
  return kj::heap<ActorCgroup>(*this, actor, kj::mv(path), kj::mv(shown), inForce.releaseAsArray());
}

// Empty where there is none.
kj::String VmCgroups::makeActorFolder(kj::StringPtr actor) {
  if (folder.size() == 0) return nullptr;
  for (int i = 0; i < MOST_TRIES; i++) {
    auto path = kj::str(folder, "/", actor, i == 0 ? kj::str() : kj::str("-", i));
    if (mkdir(path.cStr(), 0755) == 0) return path;
    if (errno != EEXIST) break;
  }
  shortage.reason =
      kj::str("a control group for ", actor, " cannot be made in ", folder, ": ", errnoText(errno));
  return nullptr;
}

// Writes the setting; why that is impossible, or nothing.
kj::StringPtr VmCgroups::putInForce(kj::StringPtr actorFolder, const CgroupSetting& setting) {
  if (setting.unfit.size() > 0) return setting.unfit;
  if ((controllers & setOf(setting.controller)) == 0) return shortage.reason;
  auto path = kj::str(actorFolder, "/", setting.file);
  bool swap = setting.file == "memory.swap.max";
  if (swap && access(path.cStr(), F_OK) != 0) return nullptr;
  int error = writeSmallFile(path, setting.value);
  if (error == 0) return nullptr;
  scratch = kj::str("writing \"", setting.value, "\" to ", path, ": ", errnoText(error));
  return scratch;
}

void VmCgroups::miss(kj::StringPtr actor, const CgroupSetting& setting, kj::StringPtr reason) {
  if (!setting.layer->mayBeMissing(runningKernel())) {
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-040: ", actor, " cannot have the limit ", setting.limit,
                            " that its profile requires: ", reason,
                            shortage.see.size() > 0 ? "\n  see: " : "", shortage.see,
                            shortage.mend.size() > 0 ? "\n  mend: " : "", shortage.mend));
  }
  for (auto& known : absent) {
    if (known.limit == setting.limit && known.reason == reason) return;
  }
  absent.add(Absent{kj::str(setting.limit), kj::str(reason)});
}

// Guest RAM is counted once for the whole VM, however the actors share it out.
void VmCgroups::grow(kj::StringPtr actor, uint64_t bytes, bool limited) {
  if (folder.size() == 0) return;
  actors.begin(actor, bytes, limited);
  uint64_t shared = costOfGuestMemory(guestBytes);
  if ((controllers & setOf(Controller::MEMORY)) == 0) return;
  auto write = [&](kj::StringPtr file, kj::String text) {
    return writeSmallFile(kj::str(folder, "/", file), text) == 0;
  };
  vmMemory = 0;
  KJ_IF_MAYBE (ofActors, actors.total()) {
    write("memory.swap.max", kj::str(shared));
    uint64_t whole = *ofActors + shared + COST_OF_GROUPS;
    if (write("memory.max", kj::str(whole))) vmMemory = whole;
  } else {
    write("memory.swap.max", kj::str("max"));
    write("memory.max", kj::str("max"));
  }
}

kj::String VmCgroups::missing() const {
  if (absent.size() == 0) return nullptr;
  kj::Vector<kj::String> parts;
  for (auto& one : absent) {
    bool known = false;
    for (auto& other : absent) {
      if (&other == &one) break;
      known |= other.reason == one.reason;
    }
    if (known) continue;
    kj::Vector<kj::StringPtr> limits;
    for (auto& other : absent) {
      if (other.reason == one.reason) limits.add(other.limit);
    }
    parts.add(kj::str(kj::strArray(limits, ", "), ": ", one.reason));
  }
  return kj::strArray(parts, "; ");
}

ActorCgroup::ActorCgroup(VmCgroups& vm, kj::StringPtr actor, kj::String folderParam,
                         kj::String shownParam, kj::Array<CgroupSetting> settingsParam)
    : whole(vm),
      actor(kj::heapString(actor)),
      folder(kj::mv(folderParam)),
      shown(kj::mv(shownParam)),
      settings(kj::mv(settingsParam)) {
  int fd;
  KJ_SYSCALL(fd = open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), folder);
  handle = kj::AutoCloseFd(fd);
}

ActorCgroup::~ActorCgroup() noexcept(false) {
  handle = nullptr;
  removeGroup(folder);
  whole.actors.end(actor);
}

CgroupAccount ActorCgroup::account() const {
  auto read = [](kj::StringPtr folder, kj::StringPtr file) {
    KJ_IF_MAYBE (text, readSmallFile(kj::str(folder, "/", file))) {
      return kj::mv(*text);
    }
    return kj::String();
  };
  auto own = read(folder, "memory.events.local");
  auto all = read(whole.folder, "memory.events.local");
  return {numberAfter(own, "oom_kill"),
          numberAfter(own, "oom"),
          numberAfter(all, "oom"),
          numberAfter(read(folder, "pids.events"), "max"),
          whole.guestBytes,
          whole.vmMemory};
}

bool ActorCgroup::isFrozen() const {
  KJ_IF_MAYBE (text, readSmallFile(kj::str(folder, "/cgroup.events"))) {
    return numberAfter(*text, "frozen") != 0;
  }
  return false;
}

bool ActorCgroup::isToFreeze() const {
  KJ_IF_MAYBE (text, readSmallFile(kj::str(folder, "/cgroup.freeze"))) {
    return hasWord(*text, "1");
  }
  return false;
}

kj::Array<kj::String> ActorCgroup::differences(pid_t pid) const {
  kj::Vector<kj::String> differences;
  KJ_IF_MAYBE (groups, readSmallFile(kj::str("/proc/", pid, "/cgroup"))) {
    if (!hasLine(*groups, kj::str("0::", shown))) {
      differences.add(kj::str("it is not in its control group ", shown));
    }
  } else {
    differences.add(kj::str("its control group cannot be read: ", errnoText(errno)));
  }
  for (auto& setting : settings) {
    auto path = kj::str(folder, "/", setting.file);
    KJ_IF_MAYBE (text, readSmallFile(path)) {
      if (hasLine(*text, setting.value)) continue;
      differences.add(kj::str("its limit ", setting.file, " is ", trimmed(kj::mv(*text)),
                              "; by its profile it is ", setting.value));
    } else {
      differences.add(kj::str("its limit ", setting.file, " cannot be read: ", errnoText(errno)));
    }
  }
  return differences.releaseAsArray();
}

}  // namespace troupe::sandbox
