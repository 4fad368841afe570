#include <capnp/message.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/time.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/child_log.h"
#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/hosting.h"
#include "vmm/payload.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t SCRATCH_BYTES = 16 << 20;

kj::AutoCloseFd makeMemFd(const char* name) {
  int fd;
  KJ_SYSCALL(fd = memfd_create(name, MFD_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

// A VM is configured by paths; this one opens what `fd` holds.
kj::String pathOf(int fd) {
  return kj::str("/proc/self/fd/", fd);
}

kj::AutoCloseFd writePayload() {
  auto fd = makeMemFd("troupe-demo-kernel");
  auto kernel = payloadKernel();
  kj::FdOutputStream(fd.get()).write(kernel.begin(), kernel.size());
  return fd;
}

// A file in memory, or else on disk, that has no name and goes with its last fd.
kj::AutoCloseFd makeScratchDisk() {
  int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {
    KJ_SYSCALL(fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  }
  kj::AutoCloseFd disk(fd);
  KJ_SYSCALL(ftruncate(disk, SCRATCH_BYTES));
  return disk;
}

// How much of the scratch disk the guest has written, told by the pages that exist.
uint64_t writtenBytes(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return uint64_t(info.st_blocks) * 512;
}

}  // namespace

ExitCode demoCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("demo",
                   "Boots the embedded guest, which tries every device and says what passed.", "");
  kj::StringPtr cmdline = "scratch";  // the guest may write to its disks
  kj::StringPtr jail = "on";
  line.add({"cmdline", "TEXT", "command line of the guest, instead of: scratch", false,
            [&](kj::StringPtr word) { cmdline = word; }});
  line.add({"jail", "on|off", "jail every actor; off is for debugging only", false,
            [&](kj::StringPtr word) { jail = word; }});
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto kernel = writePayload();
  auto disk = makeScratchDisk();
  auto console = makeMemFd("troupe-demo-console");

  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  config.setKernel(pathOf(kernel));
  config.setMemory("128M");
  config.setCmdline(cmdline);
  config.setConsole(kj::str("file=", pathOf(console)));
  config.setJail(jail);
  auto scratch = config.initDisks(1)[0];
  scratch.setPath(pathOf(disk));
  scratch.setId("scratch");

  printOut(
      kj::str("troupe demo: booting the embedded guest: 1 CPU, 128M of RAM, a scratch disk of ",
              SCRATCH_BYTES >> 20,
              "M, a virtio console, a random number generator, each served "
              "by a process of its own",
              jail == "on" ? ", each of them jailed" : " (jail off)", "\n"));
  auto& clock = kj::systemPreciseMonotonicClock();
  auto begun = clock.now();
  auto end = hostVm(config);
  auto took = (clock.now() - begun) / kj::MILLISECONDS;
  if (end.exit != ExitCode::POWERED_OFF) {
    printError(kj::str("troupe: ", end.message, "\n"));
    return end.exit;
  }
  struct stat spoken;
  KJ_SYSCALL(fstat(console, &spoken));
  printOut(kj::str("troupe demo: the guest powered off after ", took, " ms; it wrote ",
                   writtenBytes(disk) >> 10, " KiB to its disk and ", spoken.st_size,
                   " bytes to its console\n"));
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
