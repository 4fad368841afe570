#include "vmm/files/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr LOCK = ".lock"_kj;
constexpr kj::StringPtr SOCKET = ".sock"_kj;
constexpr kj::StringPtr CID = "cid-"_kj;
constexpr kj::StringPtr MAC = "mac-"_kj;
// What guests of a realm say and hear: NAME.serial, NAME.console.
constexpr kj::StringPtr LINES[] = {".serial"_kj, ".console"_kj};

kj::String chooseFolder() {
  if (geteuid() == 0) return kj::str("/run/troupe");
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') return kj::str(runtime, "/troupe");
  return kj::str("/tmp/troupe-", geteuid());
}

void checkFolder(kj::StringPtr path) {
  struct stat info;
  if (lstat(path.cStr(), &info) != 0) {
    UserError(codes::RUN_FOLDER,
              kj::str("the run-time folder ", quote(path), " is unreachable: ", errnoText(errno)))
        .raise();
  }
  kj::String wrong;
  if (!S_ISDIR(info.st_mode)) {
    wrong = kj::str("is not a folder");
  } else if (info.st_uid != geteuid()) {
    wrong = kj::str("belongs to uid ", info.st_uid, ", not to you (", geteuid(), ")");
  } else if ((info.st_mode & 0077) != 0) {
    wrong = kj::str("is open to others (its mode is not 0700)");
  } else {
    return;
  }
  UserError(codes::RUN_FOLDER_UNSAFE,
            kj::str("the run-time folder ", quote(path), " ", wrong,
                    "; somebody else could answer in the place of your VMs"))
      .advice("see", kj::str("ls -ld ", path))
      .advice("mend", "remove it, or set XDG_RUNTIME_DIR to a folder of your own")
      .raise();
}

kj::Vector<kj::String> filesIn(kj::StringPtr folder) {
  DIR* dir = opendir(folder.cStr());
  if (dir == nullptr) KJ_FAIL_SYSCALL("opendir(run-time folder)", errno, folder);
  KJ_DEFER(closedir(dir));
  kj::Vector<kj::String> names;
  while (auto* entry = readdir(dir))
    names.add(kj::heapString(entry->d_name));
  return names;
}

// The VM whose file this is; none of a file that is nobody's, or that is to stay.
kj::Maybe<kj::String> vmOf(kj::StringPtr file, Leftovers which) {
  auto before = [&](kj::StringPtr end) {
    return kj::heapString(file.slice(0, file.size() - end.size()));
  };
  if (file.endsWith(LOCK) && file.size() > LOCK.size()) return before(LOCK);
  if (file.endsWith(SOCKET) && file.size() > SOCKET.size()) return before(SOCKET);
  for (auto end : LINES) {
    if (file.endsWith(end) && file.size() > end.size()) return before(end);
  }
  if (which == Leftovers::ALL_OF_THEM && file.endsWith(QUARANTINE)) {
    auto device = before(QUARANTINE);
    KJ_IF_MAYBE (dot, device.findLast('.')) {
      if (*dot > 0) return kj::heapString(device.slice(0, *dot));
    }
  }
  return nullptr;
}

kj::String generateName() {
  uint32_t number = 0;
  KJ_SYSCALL(getrandom(&number, sizeof(number), 0));
  return kj::str("vm-", kj::hex(number));
}

}  // namespace

kj::Maybe<kj::AutoCloseFd> takeLock(kj::StringPtr path, int createFlag) {
  for (;;) {
    int raw = open(path.cStr(), O_RDWR | createFlag | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (raw < 0) {
      if (errno == ENOENT && createFlag == 0) return nullptr;
      UserError(codes::RUN_FOLDER,
                kj::str("the lock file ", quote(path), " cannot be opened: ", errnoText(errno)))
          .raise();
    }
    kj::AutoCloseFd fd(raw);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return nullptr;
    // Its last owner may have removed the file between our open and our lock.
    struct stat ours;
    struct stat there;
    KJ_SYSCALL(fstat(fd, &ours));
    if (stat(path.cStr(), &there) == 0 && ours.st_ino == there.st_ino) return kj::mv(fd);
    if (createFlag == 0) return nullptr;
  }
}

kj::String runFolder() {
  auto path = chooseFolder();
  if (mkdir(path.cStr(), 0700) != 0 && errno != EEXIST) {
    int error = errno;
    UserError(codes::RUN_FOLDER,
              kj::str("the run-time folder ", quote(path), " cannot be made: ", errnoText(error)))
        .advice("mend", "set XDG_RUNTIME_DIR to a folder of your own, or unset it")
        .raise();
  }
  checkFolder(path);
  return path;
}

VmPlace::VmPlace(kj::StringPtr name, IfTaken otherwise) : folder(runFolder()) {
  removeDead(Leftovers::BUT_FOR_QUARANTINES);
  if (name.size() > 0) {
    if (take(name)) return;
    if (otherwise == IfTaken::REFUSE) {
      UserError(codes::NAME_IN_USE, kj::str("a VM named ", quote(name),
                                            " is running; a name belongs to one VM at a time"))
          .advice("see", "troupe list")
          .raise();
    }
  }
  while (!take(generateName())) {
  }
}

bool VmPlace::take(kj::StringPtr name) {
  auto base = kj::str(folder, "/", name);
  KJ_IF_MAYBE (fd, takeLock(kj::str(base, LOCK), O_CREAT)) {
    lock = kj::mv(*fd);
  } else {
    return false;
  }
  vmName = kj::heapString(name);
  auto path = kj::str(base, SOCKET);
  KJ_ON_SCOPE_FAILURE(unlink(kj::str(base, LOCK).cStr()));
  unlink(path.cStr());  // whoever made it is dead: we hold its lock
  listening = kj::heap<ListeningSocket>(path, "the VM's control socket", codes::CONTROL_SOCKET);
  return true;
}

VmPlace::~VmPlace() noexcept(false) {
  listening = nullptr;
  unlink(kj::str(folder, "/", vmName, LOCK).cStr());
}

int VmPlace::socket() const {
  return KJ_ASSERT_NONNULL(listening)->fd();
}

kj::Array<kj::String> livingVms() {
  removeDead(Leftovers::BUT_FOR_QUARANTINES);
  kj::Vector<kj::String> names;
  for (auto& file : filesIn(runFolder())) {
    if (file.endsWith(LOCK) && file.size() > LOCK.size()) {
      names.add(kj::heapString(file.slice(0, file.size() - LOCK.size())));
    }
  }
  std::sort(names.begin(), names.end(),
            [](const kj::String& a, const kj::String& b) { return a < b; });
  return names.releaseAsArray();
}

kj::Vector<kj::String> removeDead(Leftovers which) {
  auto folder = runFolder();
  kj::Vector<kj::String> removed;
  auto remove = [&](kj::StringPtr path) {
    if (unlink(path.cStr()) == 0) removed.add(kj::heapString(path));
  };
  for (auto& file : filesIn(folder)) {
    auto path = kj::str(folder, "/", file);
    KJ_IF_MAYBE (vm, vmOf(file, which)) {
      // Made if it is missing, so that none of this name begins meanwhile.
      auto lockPath = kj::str(folder, "/", *vm, LOCK);
      bool hadLock = access(lockPath.cStr(), F_OK) == 0;
      if (file.endsWith(LOCK) && !hadLock) continue;  // it went with another file of this VM
      KJ_IF_MAYBE (lock, takeLock(lockPath, O_CREAT)) {
        (void)lock;
        remove(kj::str(folder, "/", *vm, SOCKET));
        if (!path.endsWith(LOCK) && !path.endsWith(SOCKET)) remove(path);
        if (hadLock) {
          remove(lockPath);
        } else {
          unlink(lockPath.cStr());
        }
      }
    } else if (file.startsWith(CID) || file.startsWith(MAC)) {
      KJ_IF_MAYBE (lock, takeLock(path, 0)) {
        (void)lock;
        remove(path);
      }
    }
  }
  return removed;
}

kj::StringPtr leftoverKind(kj::StringPtr path) {
  if (path.endsWith(LOCK)) return "lock"_kj;
  if (path.endsWith(QUARANTINE)) return "quarantine"_kj;
  auto file =
      path.slice(path.findLast('/').map([](size_t slash) { return slash + 1; }).orDefault(0));
  bool isVms = path.endsWith(SOCKET);
  for (auto end : LINES)
    isVms = isVms || path.endsWith(end);
  if (isVms) return "socket"_kj;
  return file.startsWith(MAC) ? "lease of a MAC address"_kj : "lease of a cid"_kj;
}

}  // namespace troupe
