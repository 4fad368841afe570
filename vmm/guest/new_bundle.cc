#include "vmm/guest/new_bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/actors/child_log.h"
#include "vmm/files/open_file.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr size_t PIECE = 1 << 20;
constexpr uint64_t STEP = 64 << 20;  // between two words about how far a copy is

template <typename Do>
void forEachEntry(kj::StringPtr folder, Do&& act) {
  DIR* list = opendir(folder.cStr());
  if (list == nullptr) return;
  KJ_DEFER(closedir(list));
  while (dirent* entry = readdir(list)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) act(entry->d_name);
  }
}

}  // namespace

NewBundle::NewBundle(kj::StringPtr path) : folder(kj::heapString(path)) {
  isOurs = mkdir(folder.cStr(), 0755) == 0;
  if (isOurs) return;
  int error = errno;
  if (error == ENOENT) {
    UserError(codes::BUNDLE_NOT_MADE, kj::str("the bundle ", quote(folder),
                                              " is not made: the folder "
                                              "that it is to lie in does not exist"))
        .advice("make it", kj::str("mkdir -p \"$(dirname ", shellWord(folder), ")\""))
        .raise();
  }
  if (error != EEXIST) failed("it cannot be made", error);
  struct stat info;
  if (stat(folder.cStr(), &info) < 0) failed("it cannot be looked at", errno);
  size_t count = 0;
  if (S_ISDIR(info.st_mode)) forEachEntry(folder, [&](const char*) { count++; });
  if (S_ISDIR(info.st_mode) && count == 0) return;
  UserError(codes::BUNDLE_NOT_MADE,
            kj::str("the bundle ", quote(folder), " is not made: there is ",
                    S_ISDIR(info.st_mode) ? "a folder already that is not empty"_kj
                                          : fileKind(info.st_mode),
                    " of this name"))
      .advice("see", kj::str("ls -la ", shellWord(folder)))
      .raise();
}

// Only what a bundle consists of is removed: files directly in it.
NewBundle::~NewBundle() noexcept(false) {
  if (kept) return;
  kj::Vector<kj::String> names;
  forEachEntry(folder, [&](const char* name) { names.add(kj::heapString(name)); });
  for (auto& name : names)
    unlink(kj::str(folder, "/", name).cStr());
  if (isOurs) rmdir(folder.cStr());
}

void NewBundle::failed(kj::StringPtr doing, int error) const {
  UserError(codes::BUNDLE_NOT_MADE,
            kj::str("the bundle ", quote(folder), " is not made: ", doing, ": ", errnoText(error)))
      .raise();
}

void NewBundle::copy(kj::StringPtr what, kj::StringPtr from, kj::StringPtr name) {
  auto source = HostFiles().open(what, from, O_RDONLY);
  struct stat info;
  KJ_SYSCALL(fstat(source, &info));
  if (!S_ISREG(info.st_mode)) {
    UserError(codes::FILE_KIND, kj::str(what, " ", quote(from), " is ", fileKind(info.st_mode),
                                        "; expected a regular file"))
        .raise();
  }
  if (info.st_size == 0) {
    UserError(codes::FILE_EMPTY, kj::str(what, " ", quote(from), " is empty")).raise();
  }
  auto to = kj::str(folder, "/", name);
  int fd = open(to.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) failed(kj::str(name, " cannot be made"), errno);
  kj::AutoCloseFd target(fd);
  uint64_t size = info.st_size, done = 0, told = 0;
  auto tell = [&]() {
    printError(kj::str("  ", name, ": ", sizeText(done), " of ", sizeText(size), "\n"));
    told = done;
  };
  for (;;) {
    ssize_t moved = sendfile(target, source, nullptr, PIECE);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) failed(kj::str(quote(from), " cannot be copied to ", name), errno);
    if (moved == 0) break;
    done += moved;
    if (done - told >= STEP) tell();
  }
  if (done != told) tell();
}

void NewBundle::write(kj::StringPtr name, kj::StringPtr text) {
  auto to = kj::str(folder, "/", name);
  int fd = open(to.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) failed(kj::str(name, " cannot be made"), errno);
  kj::FdOutputStream(kj::AutoCloseFd(fd)).write(text.begin(), text.size());
}

}  // namespace troupe
