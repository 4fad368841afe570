#include "vmm/files/host_memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <kj/debug.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmm/files/file_source.h"
#include "vmm/files/open_file.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

using Kind = HostMemoryWords::Kind;

constexpr uint64_t PAGE = 4096;
constexpr kj::Duration STEP = 5 * kj::MILLISECONDS;

struct Opened {
  kj::AutoCloseFd fd;
  struct stat info;
};

[[noreturn]] void unfit(const HostMemoryWords& words, kj::StringPtr why,
                        kj::StringPtr advice = nullptr) {
  UserError report(codes::HOST_MEMORY_UNFIT,
                   kj::str("memory of the host's ", quote(words.path), ": ", why));
  if (advice.size() > 0) report.advice("use", advice);
  report.raise();
}

// The physical addresses of the machine: cached or not, as it is opened.
bool isAllOfTheMachine(const struct stat& info) {
  return S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 1);
}

Opened open(const HostMemoryWords& words) {
  HostFiles files;
  constexpr kj::StringPtr WHAT = "memory of the host's"_kj;
  auto check = [&](mode_t mode) {
    if (S_ISREG(mode) || S_ISCHR(mode)) return;
    UserError(codes::FILE_KIND,
              kj::str(WHAT, " ", quote(words.path), " is ", fileKind(mode),
                      "; expected a regular file or a character device that can be mapped"))
        .raise();
  };
  // What is opened for writing must not be something that opening sets in motion.
  KJ_IF_MAYBE (mode, files.kindOf(WHAT, words.path)) check(*mode);
  int flags = O_RDWR | (words.kind == Kind::DEVICE ? O_SYNC : 0);
  Opened opened{files.open(WHAT, words.path, flags), {}};
  KJ_SYSCALL(fstat(opened.fd, &opened.info));
  check(opened.info.st_mode);
  return opened;
}

// A number that the kernel says of a DAX device; none of other files.
kj::Maybe<uint64_t> daxNumber(const struct stat& info, kj::StringPtr name) {
  if (!S_ISCHR(info.st_mode)) return nullptr;
  auto device = kj::str("/sys/dev/char/", major(info.st_rdev), ":", minor(info.st_rdev), "/");
  char subsystem[256];
  ssize_t length = readlink(kj::str(device, "subsystem").cStr(), subsystem, sizeof(subsystem));
  if (length <= 0 || !kj::heapString(subsystem, length).endsWith("/dax")) return nullptr;
  FILE* file = fopen(kj::str(device, name).cStr(), "re");
  if (file == nullptr) return nullptr;
  KJ_DEFER(fclose(file));
  uint64_t number;
  if (fscanf(file, "%" SCNu64, &number) != 1) return nullptr;
  return number;
}

// How large it is, where that can be known.
kj::Maybe<uint64_t> sizeOf(const Opened& opened) {
  if (S_ISREG(opened.info.st_mode)) return uint64_t(opened.info.st_size);
  return daxNumber(opened.info, "size");
}

// What offset and size have to be multiples of.
uint64_t pageOf(const Opened& opened) {
  struct statfs system;
  KJ_SYSCALL(fstatfs(opened.fd, &system));
  if (system.f_type == HUGETLBFS_MAGIC) return system.f_bsize;
  return kj::max(daxNumber(opened.info, "align").orDefault(PAGE), PAGE);
}

void checkSize(HostMemoryWords& words, const Opened& opened) {
  auto known = sizeOf(opened);
  KJ_IF_MAYBE (bytes, known) {
    uint64_t left = *bytes > words.offset ? *bytes - words.offset : 0;
    if (words.size == 0) words.size = left / PAGE * PAGE;
    if (words.size == 0 || words.size > left) {
      unfit(words,
            kj::str("it has ", *bytes, " bytes, and from ", words.offset, " on ",
                    kj::max(words.size, PAGE), " are to be had"),
            "a smaller size, or a longer file");
    }
  } else if (words.size == 0) {
    unfit(words, "how large it is cannot be found out", "size=SIZE");
  }
  uint64_t page = pageOf(opened);
  if (words.offset % page != 0 || words.size % page != 0) {
    unfit(words, kj::str("it is made of pages of ", sizeText(page), ", and offset ", words.offset,
                         " or size ", words.size, " is no multiple of them"));
  }
  checkHostMemoryPlace(words);
}

// What the kernel says of a mapping of this process.
struct Mapped {
  dev_t device = 0;
  ino_t inode = 0;
  uint64_t offset = 0;
  bool isOfDevice = false;  // registers, or memory that is none of the kernel's
};

kj::Maybe<Mapped> lookAt(const void* address) {
  FILE* table = fopen("/proc/self/smaps", "re");
  if (table == nullptr) return nullptr;
  KJ_DEFER(fclose(table));
  char line[4096 + 256];
  Mapped found;
  bool isIt = false;
  while (fgets(line, sizeof(line), table) != nullptr) {
    uint64_t begin, end, offset, inode;
    unsigned deviceMajor, deviceMinor;
    int fields = sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &begin,
                        &end, &offset, &deviceMajor, &deviceMinor, &inode);
    if (fields == 6) {
      auto wanted = reinterpret_cast<uint64_t>(address);
      isIt = begin <= wanted && wanted < end;
      found.device = makedev(deviceMajor, deviceMinor);
      found.inode = inode;
      found.offset = offset;
    } else if (isIt && strncmp(line, "VmFlags:", 8) == 0) {
      found.isOfDevice = strstr(line, " io") != nullptr || strstr(line, " pf") != nullptr;
      return found;
    }
  }
  return nullptr;
}

// Whether the kernel maps it, and as what. Nobody can read or write through this mapping. Returns
// the offset that the kernel shows of it: a PCI device's memory has its physical address there.
uint64_t checkMapping(const HostMemoryWords& words, const Opened& opened) {
  void* pointer =
      mmap(nullptr, words.size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, opened.fd, words.offset);
  if (pointer == MAP_FAILED) {
    int error = errno;
    unfit(words, kj::str("the kernel does not map ", words.size, " bytes of it from ", words.offset,
                         " on: ", errnoText(error)));
  }
  KJ_DEFER(munmap(pointer, words.size));
  KJ_IF_MAYBE (mapped, lookAt(pointer)) {
    bool isItself = mapped->device == opened.info.st_dev && mapped->inode == opened.info.st_ino;
    if (!isItself) {
      unfit(words,
            "what the kernel maps is not this file's own memory, as with /dev/zero, and with files "
            "of overlayfs and btrfs",
            "a file in tmpfs or hugetlbfs, or a device whose memory it is");
    }
    if (isAllOfTheMachine(opened.info)) return mapped->offset;
    if (words.kind == Kind::DEVICE && !mapped->isOfDevice) {
      unfit(words, "it is memory of the host's and no device's, and would be cached",
            "it without `device`");
    }
    if (words.kind == Kind::CACHED && mapped->isOfDevice) {
      unfit(words, "it is a device's memory, which is not cached", "it with `device`");
    }
    return mapped->offset;
  }
  unfit(words, "what the kernel maps of it cannot be seen in /proc/self/smaps");
}

// A lock of the open file: it lives for as long as any copy of the fd does. Disks have such locks,
// too, so that one file is not both. False while somebody else has it.
bool tryLock(const HostMemoryWords& words, const HostMemoryFile& file) {
  struct flock lock = {};
  lock.l_type = words.isShared ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = file.offset;
  lock.l_len = file.size;
  if (fcntl(file.fd, F_OFD_SETLK, &lock) == 0) return true;
  int error = errno;
  if (error != EAGAIN && error != EACCES) {
    unfit(words, kj::str("it cannot be locked: ", errnoText(error)));
  }
  return false;
}

[[noreturn]] void inUse(const HostMemoryWords& words, const HostMemoryFile& file) {
  UserError(codes::HOST_MEMORY_IN_USE,
            kj::str("memory of the host's ", quote(words.path), ", ", file.size, " bytes from ",
                    file.offset, " on, is in use",
                    words.isShared ? " by somebody who does not share it"
                                   : "; guests that have it together could speak to each other, "
                                     "which `shared` allows"))
      .advice("see", "troupe list")
      .advice("see", "lslocks --output COMMAND,PID,MODE,START,END,PATH")
      .raise();
}

}  // namespace

void measureHostMemory(HostMemoryWords& words) {
  auto opened = open(words);
  checkSize(words, opened);
  checkMapping(words, opened);
}

void addPermitted(kj::Vector<HostMemoryWords>& permitted, kj::StringPtr text) {
  constexpr kj::StringPtr OPTION = "--permit-host-memory"_kj;
  auto words = parseHostMemory(OPTION, text);
  measureHostMemory(words);
  if (permitted.size() == MOST_PERMITTED) {
    UserError(codes::HOST_MEMORY_OPTION,
              kj::str(OPTION, " is given more than ", MOST_PERMITTED, " times"))
        .raise();
  }
  for (auto& other : permitted) {
    if (words.at >= other.at + other.size || other.at >= words.at + words.size) continue;
    UserError(codes::HOST_MEMORY_OPTION,
              kj::str(OPTION, " ", quote(text), ": ", regionText(words.at, words.size),
                      " overlaps ", regionText(other.at, other.size), " of ", quote(other.path),
                      "; an address leads to one place"))
        .raise();
  }
  permitted.add(kj::mv(words));
}

HostMemoryFile openHostMemory(const HostMemoryWords& words) {
  auto sized = words.clone();
  auto opened = open(sized);
  checkSize(sized, opened);
  uint64_t shown = checkMapping(sized, opened);
  return {kj::mv(opened.fd), sized.at, sized.size, sized.offset, shown};
}

kj::Promise<void> lockHostMemory(kj::Timer& timer, const HostMemoryWords& words,
                                 const HostMemoryFile& file, kj::Duration patience) {
  if (tryLock(words, file)) return kj::READY_NOW;
  if (patience <= 0 * kj::SECONDS) inUse(words, file);
  return timer.afterDelay(STEP).then([&timer, &words, &file, patience]() {
    return lockHostMemory(timer, words, file, patience - STEP);
  });
}

}  // namespace troupe
