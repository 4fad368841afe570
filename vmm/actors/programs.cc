#include "vmm/actors/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <limits.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::String ownFolder() {
  char path[PATH_MAX];
  ssize_t length;
  KJ_SYSCALL(length = readlink("/proc/self/exe", path, sizeof(path) - 1));
  path[length] = '\0';
  kj::StringPtr text(path, length);
  return kj::heapString(text.slice(0, KJ_ASSERT_NONNULL(text.findLast('/'))));
}

kj::AutoCloseFd openProgram(kj::StringPtr folder, kj::StringPtr name) {
  auto path = kj::str(folder, "/", name);
  // O_PATH suffices to execute it.
  int fd = open(path.cStr(), O_PATH | O_CLOEXEC);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  UserError(codes::PROGRAM_MISSING, kj::str(quote(path), " cannot be opened: ", errnoText(error),
                                            "; the programs of the actors lie beside troupe"))
      .advice("see", kj::str("ls -l ", shellWord(folder), error == EMFILE ? "; ulimit -n" : ""))
      .advice("mend", "keep all that `bazel build //:bin` made in one folder")
      .raise();
}

}  // namespace

Programs openPrograms(kj::Maybe<kj::StringPtr> given) {
  kj::String folder;
  KJ_IF_MAYBE (path, given) {
    folder = kj::heapString(*path);
  } else {
    folder = ownFolder();
  }
  return {openProgram(folder, "troupe-broker"), openProgram(folder, "troupe-devices"),
          openProgram(folder, "troupe-front")};
}

kj::AutoCloseFd openDevicesProgram() {
  return openProgram(ownFolder(), "troupe-devices");
}

kj::AutoCloseFd openDevicesProgramAt(kj::StringPtr path) {
  int fd = open(path.cStr(), O_PATH | O_CLOEXEC);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  UserError(codes::FILE_UNREADABLE,
            kj::str("--binary: ", quote(path), " cannot be opened: ", errnoText(error)))
      .raise();
}

kj::AutoCloseFd openPolicyProgram(kj::Maybe<kj::StringPtr> given) {
  KJ_IF_MAYBE (path, given) {
    return openProgram(*path, "troupe-policy");
  }
  return openProgram(ownFolder(), "troupe-policy");
}

}  // namespace troupe
