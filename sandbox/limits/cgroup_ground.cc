#include "sandbox/limits/cgroup_ground.h"

#include <kj/vector.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "sandbox/limits/small_file.h"

namespace troupe::sandbox {
namespace {

constexpr kj::StringPtr UNIFY =
    "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all on the kernel's command line"_kj;

kj::Array<kj::String> linesOf(kj::StringPtr text) {
  kj::Vector<kj::String> lines;
  for (const char* line = text.cStr(); *line != 0;) {
    const char* end = strchrnul(line, '\n');
    lines.add(kj::heapString(line, end - line));
    line = *end == 0 ? end : end + 1;
  }
  return lines.releaseAsArray();
}

kj::Array<kj::String> wordsOf(kj::StringPtr line) {
  kj::Vector<kj::String> words;
  for (const char* word = line.cStr(); *word != 0;) {
    const char* end = strchrnul(word, ' ');
    words.add(kj::heapString(word, end - word));
    word = *end == 0 ? end : end + 1;
  }
  return words.releaseAsArray();
}

struct Mount {
  kj::String root;
  kj::String folder;
};

// "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
kj::Maybe<Mount> findMount(kj::StringPtr mountInfo) {
  KJ_IF_MAYBE (text, readSmallFile(mountInfo)) {
    for (kj::StringPtr line : linesOf(*text)) {
      if (strstr(line.cStr(), " - cgroup2 ") == nullptr) continue;
      auto words = wordsOf(line);
      if (words.size() < 6) continue;
      auto root = words[3] == "/" ? kj::str() : kj::mv(words[3]);
      return Mount{kj::mv(root), kj::mv(words[4])};
    }
  }
  return nullptr;
}

// "0::/user.slice/session-3.scope"
kj::Maybe<kj::String> ownGroup(kj::StringPtr ownGroups) {
  KJ_IF_MAYBE (text, readSmallFile(ownGroups)) {
    for (kj::StringPtr line : linesOf(*text)) {
      if (line.startsWith("0::/")) return kj::str(line.slice(line.size() == 4 ? 4 : 3));
    }
  }
  return nullptr;
}

uint32_t readControllers(kj::StringPtr path) {
  uint32_t found = 0;
  KJ_IF_MAYBE (text, readSmallFile(path)) {
    for (Controller one : CONTROLLERS) {
      if (hasWord(*text, nameOf(one))) found |= setOf(one);
    }
  }
  return found;
}

// How a group answers the question whether this process may divide it.
struct Look {
  bool mayWrite;
  bool root;           // of the whole hierarchy: processes may live in it, whatever it has
  bool delegated;      // systemd says that it leaves it alone
  uint32_t available;  // to its children, if it is asked
  uint32_t enabled;    // for its children
  bool empty;          // no process lives in it
  bool onlySelf;       // this process does, and no other
};

bool writable(kj::StringPtr folder) {
  for (const char* part : {"", "/cgroup.procs", "/cgroup.subtree_control"}) {
    if (access(kj::str(folder, part).cStr(), W_OK) != 0) return false;
  }
  return true;
}

bool saysDelegated(kj::StringPtr folder) {
  for (const char* name : {"trusted.delegate", "user.delegate"}) {
    char value[2] = {};
    if (getxattr(folder.cStr(), name, value, sizeof(value)) == 1 && value[0] == '1') return true;
  }
  return false;
}

Look lookAt(kj::StringPtr folder) {
  Look look = {};
  look.mayWrite = writable(folder);
  if (!look.mayWrite) return look;
  look.root = access(kj::str(folder, "/cgroup.type").cStr(), F_OK) != 0;
  look.delegated = saysDelegated(folder);
  look.available = readControllers(kj::str(folder, "/cgroup.controllers"));
  look.enabled = readControllers(kj::str(folder, "/cgroup.subtree_control"));
  KJ_IF_MAYBE (processes, readSmallFile(kj::str(folder, "/cgroup.procs"))) {
    look.empty = processes->size() == 0;
    look.onlySelf = *processes == kj::str(getpid(), "\n");
  }
  return look;
}

// Which of `wanted` groups made there could have.
uint32_t offer(const Look& look, uint32_t wanted, bool asRoot) {
  if (!look.mayWrite) return 0;
  if (asRoot && !look.root && !look.delegated) return 0;
  // What others manage is taken as it is.
  bool mayEnable = look.root || look.onlySelf || (look.delegated && look.empty);
  return wanted & (mayEnable ? look.available : look.enabled);
}

int count(uint32_t set) {
  return __builtin_popcount(set);
}

kj::String delegation(bool asRoot) {
  return kj::str("run it in a group of its own: systemd-run ", asRoot ? "" : "--user ",
                 "--scope -p Delegate=yes troupe …");
}

kj::String parentOf(kj::StringPtr group) {
  KJ_IF_MAYBE (slash, group.findLast('/')) {
    return kj::heapString(group.slice(0, *slash));
  }
  return nullptr;
}

}  // namespace

const char* nameOf(Controller controller) {
  switch (controller) {
    case Controller::MEMORY:
      return "memory";
    case Controller::PIDS:
      return "pids";
    case Controller::CPU:
      return "cpu";
    case Controller::IO:
      return "io";
  }
  return "?";
}

kj::String namesOf(uint32_t controllers) {
  kj::Vector<kj::StringPtr> names;
  for (Controller one : CONTROLLERS) {
    if (controllers & setOf(one)) names.add(nameOf(one));
  }
  return kj::strArray(names, ", ");
}

CgroupShortage shortageOf(const CgroupGround& ground, uint32_t wanted) {
  auto folder = ground.folder();
  return {
      kj::str("groups in ", folder, " cannot have the controllers ",
              namesOf(wanted & ~ground.controllers)),
      kj::str("cat ", folder, "/cgroup.controllers"),
      kj::str("let the group above pass them on: as root, echo +NAME > …/cgroup.subtree_control; "
              "at the root of the hierarchy, ",
              UNIFY)};
}

kj::OneOf<CgroupGround, CgroupShortage> findCgroupGround(uint32_t wanted, const CgroupView& view) {
  Mount mount;
  KJ_IF_MAYBE (found, findMount(view.mountInfo)) {
    mount = kj::mv(*found);
  } else {
    return CgroupShortage{kj::str("this machine has mounted no control groups of version 2"),
                          kj::str("grep cgroup /proc/mounts"), kj::str(UNIFY)};
  }
  // A process in another part of the tree than the mount shows can be given no group there.
  kj::String own;
  KJ_IF_MAYBE (group, ownGroup(view.ownGroups)) {
    if (!group->startsWith(mount.root)) {
      return CgroupShortage{
          kj::str("this process lives in a control group that ", mount.folder, " does not show"),
          kj::str("cat /proc/self/cgroup; grep cgroup2 /proc/self/mountinfo"),
          kj::str("mount the whole hierarchy: as root, mount -t cgroup2 none ", mount.folder)};
    }
    own = kj::heapString(group->slice(mount.root.size()));
  } else {
    return CgroupShortage{kj::str("this process is in no control group of version 2"),
                          kj::str("cat /proc/self/cgroup"), kj::str(UNIFY)};
  }

  auto here = [&](kj::StringPtr group) { return kj::str(mount.folder, group); };
  kj::Maybe<CgroupGround> best;
  auto consider = [&](kj::StringPtr group) {
    auto look = lookAt(here(group));
    uint32_t offered = offer(look, wanted, view.asRoot);
    KJ_IF_MAYBE (other, best) {
      if (count(offered) <= count(other->controllers)) return;
    }
    if (offered == 0) return;
    best = CgroupGround{kj::str(mount.folder), kj::str(mount.root), kj::str(group), offered,
                        look.onlySelf && !look.root};
  };
  auto group = kj::str(own);
  // Where this process moved to divide the one above for another VM of its own.
  if (group.endsWith(kj::str("/", LEAF_PREFIX, getpid()))) group = parentOf(group);
  for (;;) {
    consider(group);
    if (group.size() == 0) break;
    group = parentOf(group);
  }
  KJ_IF_MAYBE (ground, best) {
    return kj::mv(*ground);
  }

  uint32_t offered = readControllers(kj::str(mount.folder, "/cgroup.controllers")) & wanted;
  if (offered == 0) {
    return CgroupShortage{kj::str("the hierarchy of version 2 at ", mount.folder,
                                  " has none of the controllers ", namesOf(wanted)),
                          kj::str("cat ", mount.folder, "/cgroup.controllers"), kj::str(UNIFY)};
  }
  auto folder = here(own);
  auto look = lookAt(folder);
  if (look.mayWrite && !look.onlySelf) {
    return CgroupShortage{
        kj::str("other processes live in ", folder,
                ", and a group with processes cannot be divided into groups with limits"),
        kj::str("cat ", folder, "/cgroup.procs"), delegation(view.asRoot)};
  }
  return CgroupShortage{kj::str("neither ", folder, " nor a group above it may be divided by you"),
                        kj::str("ls -ld ", folder), delegation(view.asRoot)};
}

}  // namespace troupe::sandbox
