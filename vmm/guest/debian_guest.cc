#include "vmm/guest/debian_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

extern "C" {
extern const char _binary_debian_kernel_start[], _binary_debian_kernel_end[];
extern const char _binary_make_debian_bundle_start[], _binary_make_debian_bundle_end[];
extern const char _binary_make_initrd_start[], _binary_make_initrd_end[];
extern const char _binary_make_root_start[], _binary_make_root_end[];
}

namespace troupe {

namespace {

struct Script {
  kj::StringPtr name;
  const char* start;
  const char* end;
};
const Script SCRIPTS[] = {
    {"debian_kernel"_kj, _binary_debian_kernel_start, _binary_debian_kernel_end},
    {"make_debian_bundle"_kj, _binary_make_debian_bundle_start, _binary_make_debian_bundle_end},
    {"make_initrd"_kj, _binary_make_initrd_start, _binary_make_initrd_end},
    {"make_root"_kj, _binary_make_root_start, _binary_make_root_end}};

// A folder with the scripts, for as long as this object lives.
class ScriptFolder {
 public:
  ScriptFolder() {
    char name[] = "/tmp/troupe-guest-XXXXXX";
    if (mkdtemp(name) == nullptr) {
      UserError(codes::BUNDLE_NOT_MADE,
                kj::str("no folder can be made in /tmp: ", errnoText(errno)))
          .raise();
    }
    path = kj::heapString(name);
    for (auto& script : SCRIPTS) {
      auto file = kj::str(path, "/", script.name);
      int fd;
      KJ_SYSCALL(fd = open(file.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700), file);
      kj::FdOutputStream(kj::AutoCloseFd(fd)).write(script.start, script.end - script.start);
    }
  }
  ~ScriptFolder() noexcept(false) {
    for (auto& script : SCRIPTS)
      unlink(kj::str(path, "/", script.name).cStr());
    rmdir(path.cStr());
  }
  KJ_DISALLOW_COPY(ScriptFolder);

  kj::String path;
};

// Runs it to its end. Ctrl-C is the script's: what it leaves is cleared away here then.
int run(const char* program, const char* argument) {
  auto before = signal(SIGINT, SIG_IGN);
  KJ_DEFER(signal(SIGINT, before));
  pid_t pid = fork();
  if (pid == 0) {
    signal(SIGINT, before);
    dup2(STDERR_FILENO, STDOUT_FILENO);  // how far it is, is no output of the command
    execl(program, program, argument, static_cast<char*>(nullptr));
    _exit(127);
  }
  KJ_SYSCALL(pid);
  int status;
  while (waitpid(pid, &status, 0) < 0)
    KJ_REQUIRE(errno == EINTR, "waitpid", errno);
  return status;
}

}  // namespace

void makeDebianGuest(kj::StringPtr folder) {
  ScriptFolder scripts;
  auto program = kj::str(scripts.path, "/make_debian_bundle");
  int status = run(program.cStr(), folder.cStr());
  if (status == 0) return;
  UserError(codes::BUNDLE_NOT_MADE,
            kj::str("the bundle ", quote(folder), " is not made: the script that makes it ",
                    describeWaitStatus(status)))
      .advice("see", "what it said above")
      .raise();
}

}  // namespace troupe
