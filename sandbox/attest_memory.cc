// Which memory an actor shares with others, and whether it can write it.

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sandbox/attest_subject.h"
#include "sandbox/errno_text.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

constexpr const char* LAYER = "memory";
constexpr const char* HOST_LAYER = "host memory";

// Of the largest broker 100 KiB; a table that is longer is nobody's of ours.
constexpr size_t MAX_TABLE_BYTES = 4 << 20;

// A line of /proc/PID/maps about a file.
struct MappedFile {
  uint64_t begin, end;
  uint64_t offset;  // in the file
  char protection[5];
  uint64_t device, inode;
  kj::String name;

  uint64_t size() const { return end - begin; }
  bool allows(char what) const { return strchr(protection, what) != nullptr; }
};

// None: it cannot be read. A table that is too long comes without its end.
kj::Maybe<kj::String> readTable(int folder) {
  KJ_IF_MAYBE (file, openAt(folder, "maps", O_RDONLY)) {
    kj::Vector<char> text;
    char buffer[16384];
    while (text.size() < MAX_TABLE_BYTES) {
      ssize_t n = read(*file, buffer, sizeof(buffer));
      if (n < 0) return nullptr;
      if (n == 0) break;
      text.addAll(buffer, buffer + n);
    }
    return kj::heapString(text.begin(), text.size());
  }
  return nullptr;
}

// "7f1c00000000-7f1c20000000 rw-s 00000000 00:01 1027    /memfd:guest-ram (deleted)"
kj::Maybe<MappedFile> parse(const char* line, size_t length) {
  MappedFile file;
  unsigned deviceMajor, deviceMinor;
  int nameBegin = 0;
  int fields = sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
                      &file.begin, &file.end, file.protection, &file.offset, &deviceMajor,
                      &deviceMinor, &file.inode, &nameBegin);
  if (fields != 7 || file.inode == 0) return nullptr;
  file.device = makedev(deviceMajor, deviceMinor);
  size_t begin = kj::min(size_t(nameBegin), length);
  file.name = kj::heapString(line + begin, length - begin);
  return kj::mv(file);
}

class MemoryView {
 public:
  explicit MemoryView(Subject& subject)
      : subject(subject), granted(subject.profile.layers.memory) {}

  void look() {
    KJ_IF_MAYBE (table, readTable(subject.folder)) {
      for (const char* line = table->cStr(); *line != '\0';) {
        size_t length = strcspn(line, "\n");
        KJ_IF_MAYBE (file, parse(line, length)) {
          listOf(*file).add(kj::mv(*file));
        }
        line += length + (line[length] == '\n');
      }
      describe();
      if (table->size() >= MAX_TABLE_BYTES) subject.differ(LAYER, "it maps too much to be read");
    } else {
      subject.differ(LAYER, "what it maps cannot be read: ", errnoText(errno));
    }
    for (const MappedFile& file : ram)
      checkRam(file);
    for (const MappedFile& file : journals) {
      if (file.allows('x'))
        subject.differ(LAYER, "it maps its journals so that it can execute them");
    }
    for (const MappedFile& file : hosts)
      checkHost(file);
    for (const MappedFile& file : others)
      checkOther(file);
    if (granted.access == ProfileMemory::READ_ONLY) checkFd();
  }

 private:
  kj::Vector<MappedFile>& listOf(const MappedFile& file) {
    return isJournal(file) ? journals : isRam(file) ? ram : isHosts(file) ? hosts : others;
  }

  static bool isSame(const MappedFile& file, const SharedFile& shared) {
    return file.device == shared.device && file.inode == shared.inode;
  }

  bool isRam(const MappedFile& file) const {
    KJ_IF_MAYBE (memory, subject.options.memory) {
      return isSame(file, *memory);
    }
    return file.name.startsWith("/memfd:");
  }

  bool isJournal(const MappedFile& file) const {
    for (const SharedFile& journal : subject.options.journals) {
      if (isSame(file, journal)) return true;
    }
    return false;
  }

  // The right file, and no more of it than was handed over.
  bool isHosts(const MappedFile& file) const {
    for (const SharedFile& memory : subject.options.hostMemory) {
      if (!isSame(file, memory)) continue;
      for (const FileRange& range : memory.ranges) {
        if (file.offset >= range.offset && file.offset - range.offset <= range.size &&
            file.size() <= range.size - (file.offset - range.offset)) {
          return true;
        }
      }
    }
    return false;
  }

  void describe() {
    uint64_t bytes = 0;
    bool writable = false;
    for (const MappedFile& file : ram) {
      bytes += file.size();
      writable |= file.allows('w');
    }
    if (bytes == 0) return subject.seen(LAYER, "none of the guest's");
    subject.seen(LAYER, bytes >> 10, " KiB of the guest's, ",
                 writable ? "read and write" : "read only");
  }

  template <typename... Parts>
  void differ(const MappedFile& file, Parts&&... parts) {
    subject.differ(LAYER, "it maps ", file.size(), " bytes of guest memory, from ", file.offset,
                   " on, ", kj::fwd<Parts>(parts)...);
  }

  void checkRam(const MappedFile& file) {
    if (file.allows('x')) differ(file, "so that it can execute them");
    switch (granted.access) {
      case ProfileMemory::NONE:
        return differ(file, "and its profile gives it none");
      case ProfileMemory::READ_ONLY:
        if (file.allows('w') || canBecomeWritable(file)) {
          differ(file, "so that it can write them; its profile lets it read");
        }
        return;
      case ProfileMemory::RANGES:
        if (!isGranted(file)) differ(file, "beyond the ranges its profile names");
        return;
      case ProfileMemory::ALL:
        return;
    }
  }

  // The link's mode says how the file was opened: mprotect() adds no right that this lacks. A
  // private mapping is written to in copies.
  bool canBecomeWritable(const MappedFile& file) {
    if (!file.allows('s')) return false;
    struct stat link;
    auto path = kj::str("map_files/", kj::hex(file.begin), "-", kj::hex(file.end));
    if (fstatat(subject.folder, path.cStr(), &link, AT_SYMLINK_NOFOLLOW) < 0) return true;
    return (link.st_mode & S_IWUSR) != 0;
  }

  // Neighbours in the file may be one mapping, as the kernel shows them.
  bool isGranted(const MappedFile& file) const {
    uint64_t next = file.offset, end = file.offset + file.size();
    KJ_IF_MAYBE (memory, subject.options.memory) {
      for (const FileRange& range : memory->ranges) {
        if (range.offset <= next && next < range.offset + range.size) {
          next = range.offset + range.size;
        }
      }
    }
    return next >= end;
  }

  void checkHost(const MappedFile& file) {
    subject.seen(HOST_LAYER, file.size() >> 10, " KiB of ", file.name, ", ",
                 file.allows('w') ? "read and write" : "read only");
    subject.hostMemory.add(HostMapping{kj::str(file.name), file.size()});
    if (file.allows('x')) {
      subject.differ(HOST_LAYER, "it maps memory of the host's, ", file.name,
                     ", so that it can execute it");
    }
  }

  void checkOther(const MappedFile& file) {
    if (!file.allows('s')) return;
    if (file.name == "anon_inode:[io_uring]") {
      if (subject.profile.layers.ioUringOpcodeCount > 0) return;
      return subject.differ(LAYER, "it has an io_uring; its profile has none");
    }
    if (file.name.startsWith("anon_inode:")) return;
    subject.differ(LAYER, "it shares memory with others that is not the guest's: ", file.name);
  }

  // As long as it is open it can be mapped again.
  void checkFd() {
    for (size_t i = 0; i < subject.profile.fdCount; i++) {
      const ProfileFd& fd = subject.profile.fds[i];
      if (kj::StringPtr(fd.name) != granted.fd) continue;
      KJ_IF_MAYBE (info, readAll(subject.folder, kj::str("fdinfo/", fd.number).cStr())) {
        // "pos:\t0\nflags:\t0100000\n…", in octal.
        int flags = strtol(statusField(*info, "flags").cStr(), nullptr, 8);
        if ((flags & O_ACCMODE) == O_RDONLY) continue;
        subject.differ(LAYER, "its fd \"", fd.name, "\" (", fd.number,
                       ") can write guest memory; its profile lets it read");
      }
    }
  }

  Subject& subject;
  const ProfileMemory& granted;
  kj::Vector<MappedFile> ram;
  kj::Vector<MappedFile> journals;
  kj::Vector<MappedFile> hosts;  // memory of the host's
  kj::Vector<MappedFile> others;
};

}  // namespace

void attestMemory(Subject& subject) {
  MemoryView(subject).look();
}

}  // namespace troupe::sandbox
