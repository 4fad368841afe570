#include "vmm/policy/profile_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/common.h>
#include <kj/io.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// All of Troupe's own profiles are 15 files of 60 KiB. What is sent to the compiler fits its setup.
constexpr size_t MOST_ENTRIES = 256;
constexpr size_t MOST_BYTES = 512 << 10;
constexpr uint DEEPEST = 8;

class FolderReader {
 public:
  explicit FolderReader(kj::StringPtr folder) : folder(folder) {}

  kj::Vector<ProfileText> read() {
    int root = open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) refuse(errnoText(errno));
    readFolder(kj::AutoCloseFd(root), "", 0);
    if (texts.size() == 0) {
      refuse(
          "it has no profile; that of an actor lies as in the source tree, at "
          "devices/rng/rng.profile, say");
    }
    return kj::mv(texts);
  }

 private:
  [[noreturn]] void refuse(kj::StringPtr why, kj::StringPtr below = "") {
    auto path = below.size() == 0 ? kj::heapString(folder) : kj::str(folder, "/", below);
    UserError(
        codes::PROFILE_FOLDER,
        kj::str("--profile-dir ", quote(folder), " cannot be used",
                below.size() == 0 ? kj::str() : kj::str(" because of ", quote(path)), ": ", why))
        .advice("see", kj::str("ls -lR ", shellWord(folder)))
        .raise();
  }

  void readFolder(kj::AutoCloseFd fd, kj::StringPtr below, uint depth) {
    if (depth > DEEPEST) refuse("it is deeper than any profile lies", below);
    for (auto& name : namesIn(kj::mv(fd), below)) {
      if (name.startsWith(".") || name.startsWith("README")) continue;
      readEntry(below.size() == 0 ? kj::str(name) : kj::str(below, "/", name), depth);
    }
  }

  kj::Vector<kj::String> namesIn(kj::AutoCloseFd fd, kj::StringPtr below) {
    DIR* raw = fdopendir(fd.release());
    if (raw == nullptr) refuse(errnoText(errno), below);
    KJ_DEFER(closedir(raw));
    kj::Vector<kj::String> names;
    while (dirent* entry = readdir(raw)) {
      names.add(kj::heapString(entry->d_name));
      if (++entries > MOST_ENTRIES) refuse("it has more entries than there can be of profiles");
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  void readEntry(kj::String path, uint depth) {
    auto whole = kj::str(folder, "/", path);
    // O_NONBLOCK: a named pipe is refused, not waited for.
    int raw = open(whole.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (raw < 0) refuse(errnoText(errno), path);
    kj::AutoCloseFd fd(raw);
    struct stat info;
    if (fstat(fd, &info) < 0) refuse(errnoText(errno), path);
    if (S_ISDIR(info.st_mode)) return readFolder(kj::mv(fd), path, depth + 1);
    if (!S_ISREG(info.st_mode)) refuse("it is neither a file nor a folder", path);
    if (!path.endsWith(".profile")) {
      refuse("its name does not end in .profile, so nothing would come of it", path);
    }
    for (char c : path) {
      bool plain = c > 0x20 && c < 0x7f;
      if (!plain) refuse("its name is not plain ASCII without spaces", path);
    }
    auto text = readFile(fd, path);
    texts.add(ProfileText{kj::mv(path), kj::mv(text)});
  }

  kj::Array<kj::byte> readFile(int fd, kj::StringPtr path) {
    auto buffer = kj::heapArray<kj::byte>(MOST_BYTES - bytes + 1);
    size_t size = 0;
    for (;;) {
      ssize_t got = ::read(fd, buffer.begin() + size, buffer.size() - size);
      if (got < 0) refuse(errnoText(errno), path);
      size += got;
      if (bytes + size > MOST_BYTES) refuse("with it there are more than 512 KiB", path);
      if (got == 0) break;
    }
    bytes += size;
    return kj::heapArray<kj::byte>(buffer.slice(0, size));
  }

  kj::StringPtr folder;
  kj::Vector<ProfileText> texts;
  size_t entries = 0;
  size_t bytes = 0;
};

}  // namespace

kj::Vector<ProfileText> readProfileFolder(kj::StringPtr folder) {
  return FolderReader(folder).read();
}

}  // namespace troupe
