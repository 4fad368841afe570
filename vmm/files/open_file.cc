#include "vmm/files/open_file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "devices/blk/blk.capnp.h"
#include "sandbox/shared_memory.h"
#include "vmm/files/disk_lock.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t SECTOR = 512;

struct stat statOf(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return info;
}

[[noreturn]] void wrongKind(kj::StringPtr what, kj::StringPtr path, mode_t mode,
                            kj::StringPtr expected) {
  UserError(codes::FILE_KIND,
            kj::str(what, " ", quote(path), " is ", fileKind(mode), "; expected ", expected))
      .raise();
}

uint64_t diskSize(int fd, const struct stat& info, const DiskPlan& disk) {
  if (S_ISREG(info.st_mode)) return info.st_size;
  if (S_ISBLK(info.st_mode)) {
    uint64_t bytes = 0;
    KJ_SYSCALL(ioctl(fd, BLKGETSIZE64, &bytes));
    return bytes;
  }
  // A read-write open of a directory already failed; a read-only one comes here.
  wrongKind("disk", disk.path, info.st_mode, "a regular file or a block device");
}

// What is in an image is for its actor to find out.
void checkDiskSize(uint64_t size, const DiskPlan& disk) {
  if (disk.format != DiskFormat::RAW) return;
  if (size != 0 && size % SECTOR == 0) return;
  UserError(codes::DISK_SIZE,
            kj::str("disk ", quote(disk.path), " has ", size,
                    " bytes; a raw disk is a multiple of 512 bytes, at least 512"))
      .advice("see", kj::str("stat -L -c %s ", shellWord(disk.path)))
      .raise();
}

// A file of a disk, as it is compared with the others.
struct UsedFile {
  size_t disk;
  kj::StringPtr what;  // "disk"
  kj::StringPtr path;
  bool readOnly;
  struct stat info;
};

bool isSameFile(const struct stat& one, const struct stat& other) {
  if (S_ISBLK(one.st_mode) && S_ISBLK(other.st_mode)) return one.st_rdev == other.st_rdev;
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

void checkPair(const UsedFile& file, const UsedFile& earlier) {
  if (!isSameFile(file.info, earlier.info)) return;
  if (file.disk == earlier.disk) {
    UserError(codes::BACKING_LOOP,
              kj::str(file.what, " ", quote(file.path), " is the same file as ", earlier.what, " ",
                      quote(earlier.path), " above it; a chain of backing files does not loop"))
        .raise();
  }
  if (file.readOnly && earlier.readOnly) return;
  UserError(codes::DISK_TWICE,
            kj::str(file.what, " ", quote(file.path), " is the same file as ", earlier.what, " ",
                    quote(earlier.path),
                    "; one file can be two disks only if both have ,ro or ,volatile"))
      .raise();
}

void checkSharing(kj::ArrayPtr<const DiskPlan> disks, kj::ArrayPtr<const OpenFile> files) {
  kj::Vector<UsedFile> used;
  for (size_t i = 0; i < disks.size(); i++) {
    used.add(UsedFile{i, "disk"_kj, disks[i].path, disks[i].readOnly, statOf(files[i].fd)});
    for (size_t j = 0; j < files[i].backing.size(); j++) {
      used.add(UsedFile{i, "backing file"_kj, disks[i].backing[j].path, true,
                        statOf(files[i].backing[j])});
    }
  }
  for (size_t i = 0; i < used.size(); i++) {
    for (size_t j = 0; j < i; j++)
      checkPair(used[i], used[j]);
  }
}

uint64_t hostMemory() {
  struct sysinfo info;
  KJ_SYSCALL(sysinfo(&info));
  return uint64_t(info.totalram) * info.mem_unit;
}

// A sparse file, so its size costs nothing. How large the disk in an image is only its actor knows.
kj::Maybe<Overlay> makeOverlay(const DiskPlan& disk, uint64_t fileBytes) {
  if (!disk.isVolatile) return nullptr;
  constexpr uint64_t PAGE = 4096;
  uint64_t bytes = BlkConfig::MOST_VOLATILE_BYTES;
  if (disk.format == DiskFormat::RAW) {
    bytes = kj::min((fileBytes + PAGE - 1) / PAGE * PAGE, bytes);
  }
  auto memory = sandbox::makeSharedMemory("disk-overlay", bytes);
  return Overlay{kj::mv(memory.writable), kj::min(bytes, hostMemory() / 2 / PAGE * PAGE)};
}

kj::AutoCloseFd openBacking(const FileSource& source, const BackingPlan& plan) {
  auto fd = source.open("backing file", plan.path, O_RDONLY);
  auto info = statOf(fd);
  bool isRaw = plan.format == DiskFormat::RAW;
  if (!S_ISREG(info.st_mode) && !(isRaw && S_ISBLK(info.st_mode))) {
    wrongKind("backing file", plan.path, info.st_mode,
              isRaw ? "a regular file or a block device" : "a regular file");
  }
  KJ_SYSCALL(fcntl(fd, F_SETFL, 0));  // drops O_NONBLOCK
  return fd;
}

void checkDiskKind(const DiskPlan& disk, mode_t mode) {
  if (!S_ISREG(mode) && !S_ISBLK(mode)) {
    wrongKind("disk", disk.path, mode, "a regular file or a block device");
  }
  if (disk.format != DiskFormat::RAW && S_ISBLK(mode)) {
    wrongKind("disk", disk.path, mode, "a regular file, as format=qcow2 needs");
  }
}

// A file that somebody else has opened. What is done with it here, locks, flags and position, is to
// be nobody else's, so it is opened anew; for no more than its opener may do.
kj::AutoCloseFd openHanded(const DiskPlan& disk, int flags) {
  auto refuse = [&](kj::StringPtr why, kj::StringPtr advice) {
    UserError(codes::BLOCK_DEVICE, kj::str(disk.path, " ", why)).advice("use", advice).raise();
  };
  int given = fcntl(disk.handed, F_GETFL);
  if (given < 0 || (given & O_PATH)) refuse("is no open file", "an fd of open(2), without O_PATH");
  if ((given & O_ACCMODE) == O_WRONLY) refuse("cannot be read", "an fd that is open for reading");
  if (!disk.readOnly && (given & O_ACCMODE) != O_RDWR) {
    refuse("is open for reading alone, and its mode is readWrite",
           "an fd that is open for reading and writing, or the mode readOnly or volatileWrite");
  }
  checkDiskKind(disk, statOf(disk.handed).st_mode);
  auto self = kj::str("/proc/self/fd/", disk.handed);
  int fd = open(self.cStr(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  UserError(codes::BLOCK_DEVICE,
            kj::str(disk.path, " cannot be opened anew by troupe: ", errnoText(error)))
      .advice("use", "a file that the user who runs troupe may open")
      .raise();
}

kj::AutoCloseFd openDiskFile(const FileSource& source, const DiskPlan& disk, int flags) {
  if (disk.handed >= 0) return openHanded(disk, flags);
  // What is opened for writing must not be something that opening sets in motion.
  KJ_IF_MAYBE (mode, source.kindOf("disk", disk.path)) checkDiskKind(disk, *mode);
  return source.open("disk", disk.path, flags);
}

OpenFile openDiskUnlocked(const FileSource& source, const DiskPlan& disk) {
  int flags = (disk.readOnly ? O_RDONLY : O_RDWR) | (disk.direct ? O_DIRECT : 0);
  auto fd = openDiskFile(source, disk, flags);
  uint64_t size = diskSize(fd, statOf(fd), disk);
  checkDiskSize(size, disk);
  KJ_SYSCALL(fcntl(fd, F_SETFL, flags & O_DIRECT));  // drops O_NONBLOCK
  auto backing = KJ_MAP(plan, disk.backing) {
    return openBacking(source, plan);
  };
  return {kj::mv(fd), size, kj::mv(backing), makeOverlay(disk, size)};
}

kj::Vector<LockedFile> lockedFiles(const OpenFile& file, const DiskPlan& disk) {
  kj::Vector<LockedFile> all;
  all.add(LockedFile{file.fd, disk.path, disk.readOnly, false});
  for (size_t i = 0; i < file.backing.size(); i++)
    all.add(LockedFile{file.backing[i], disk.backing[i].path, true, true});
  return all;
}

void lockAll(const OpenFile& file, const DiskPlan& disk) {
  for (auto& one : lockedFiles(file, disk))
    lockFile(one);
}

}  // namespace

kj::StringPtr fileKind(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    case S_IFIFO:
      return "a named pipe";
    case S_IFSOCK:
      return "a socket";
    default:
      return "a regular file";
  }
}

OpenFile openImage(kj::StringPtr what, kj::StringPtr path, uint64_t memoryBytes,
                   const FileSource& source) {
  auto fd = source.open(what, path, O_RDONLY);
  auto info = statOf(fd);
  if (!S_ISREG(info.st_mode)) wrongKind(what, path, info.st_mode, "a regular file");
  uint64_t size = info.st_size;
  if (size == 0) {
    UserError(codes::FILE_EMPTY, kj::str(what, " ", quote(path), " is empty")).raise();
  }
  if (size > memoryBytes) {
    UserError(codes::FILE_EXCEEDS_RAM,
              kj::str(what, " ", quote(path), " has ", sizeText(size),
                      "; it does not fit the VM's ", sizeText(memoryBytes), " of RAM"))
        .advice("try", "a larger --memory")
        .raise();
  }
  return {kj::mv(fd), size};
}

OpenFile openDisk(const DiskPlan& disk) {
  auto file = openDiskUnlocked(HostFiles(), disk);
  lockAll(file, disk);
  return file;
}

kj::Array<OpenFile> openDisks(kj::ArrayPtr<const DiskPlan> disks, const FileSource& source,
                              Locking locking) {
  auto files = KJ_MAP(disk, disks) {
    return openDiskUnlocked(source, disk);
  };
  checkSharing(disks, files);
  if (locking == Locking::LATER) return files;
  for (size_t i = 0; i < files.size(); i++)
    lockAll(files[i], disks[i]);
  return files;
}

kj::Promise<void> lockDisks(kj::Timer& timer, kj::ArrayPtr<const DiskPlan> disks,
                            kj::ArrayPtr<const OpenFile> files) {
  kj::Vector<kj::Promise<void>> all;
  for (size_t i = 0; i < files.size(); i++) {
    for (auto& one : lockedFiles(files[i], disks[i]))
      all.add(lockFile(timer, one));
  }
  return kj::joinPromises(all.releaseAsArray());
}

kj::Array<kj::AutoCloseFd> openBackingFiles(kj::ArrayPtr<const BackingPlan> backing) {
  auto fds = KJ_MAP(plan, backing) {
    return openBacking(HostFiles(), plan);
  };
  kj::Vector<UsedFile> used;
  for (size_t i = 0; i < fds.size(); i++) {
    used.add(UsedFile{0, "backing file"_kj, backing[i].path, true, statOf(fds[i])});
    for (size_t j = 0; j < i; j++)
      checkPair(used[i], used[j]);
    lockFile({fds[i], backing[i].path, true, true});
  }
  return fds;
}

kj::Promise<void> releaseDisks(kj::Timer& timer, kj::Array<OpenFile> disks) {
  auto all = KJ_MAP(disk, disks) {
    return releaseFile(timer, kj::mv(disk.fd));
  };
  return kj::joinPromises(kj::mv(all));
}

kj::AutoCloseFd openKvm() {
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      UserError(codes::NO_KVM, kj::str("this host has no usable /dev/kvm: ", errnoText(error)))
          .advice("see", "ls -l /dev/kvm; lsmod | grep kvm; grep -E -c 'vmx|svm' /proc/cpuinfo")
          .advice("mend", "sudo modprobe kvm_intel || sudo modprobe kvm_amd")
          .raise();
    case EACCES:
    case EPERM:
      UserError(codes::KVM_FORBIDDEN, kj::str("you may not open /dev/kvm: ", errnoText(error),
                                              "; it belongs to the members of group kvm"))
          .advice("see", "ls -l /dev/kvm; id")
          .advice("mend", "sudo usermod -aG kvm \"$USER\", then log in again")
          .raise();
    default:
      UserError(codes::KVM_UNUSABLE, kj::str("/dev/kvm cannot be opened: ", errnoText(error)))
          .advice("see", "troupe doctor")
          .raise();
  }
}

void checkHostMemory(uint64_t memoryBytes) {
  uint64_t host = hostMemory();
  if (memoryBytes <= host) return;
  UserError(codes::MEMORY_EXCEEDS_HOST,
            kj::str("--memory ", sizeText(memoryBytes), " is more RAM than this host has (",
                    sizeText(host), ")"))
      .advice("see", "free -h")
      .raise();
}

}  // namespace troupe
