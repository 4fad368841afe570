#include <capnp/message.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/time.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/commands/payload.h"
#include "vmm/serve/hosting.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

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

// What the guest said, line by line, safe to show.
kj::String textIn(int fd) {
  constexpr size_t MOST = 256 << 10;
  auto buffer = kj::heapArray<char>(MOST);
  ssize_t size;
  KJ_SYSCALL(size = pread(fd, buffer.begin(), buffer.size(), 0));
  kj::Vector<kj::String> lines;
  kj::ArrayPtr<const char> left = buffer.slice(0, size);
  while (left.size() > 0) {
    auto end = std::find(left.begin(), left.end(), '\n');
    kj::ArrayPtr<const char> line(left.begin(), end);
    if (line.size() > 0 && line.back() == '\r') line = line.slice(0, line.size() - 1);
    lines.add(escape(line));
    left = kj::arrayPtr(end == left.end() ? end : end + 1, left.end());
  }
  return kj::strArray(lines, "\n");
}

// What a guest whose checks failed does instead of powering off.
constexpr kj::StringPtr VERDICT = "end=verdict"_kj;

// The processes that played the VM, as they were when the guest began.
class Cast {
 public:
  void note(RunningVm& vm, kj::Duration sinceStart) {
    startedAfter = sinceStart;
    vm.describe(message.initRoot<VmStatus>());
  }

  JsonLine toJson() {
    JsonLine list(JsonLine::Kind::LIST);
    for (auto actor : message.getRoot<VmStatus>().getActors()) {
      list.add(JsonLine()
                   .text("name", actor.getName())
                   .text("kind", actor.getKind())
                   .number("pid", actor.getPid())
                   .text("jail", actor.getJail()));
    }
    return list;
  }

  kj::String tell() {
    constexpr kj::StringPtr HEADINGS[] = {"ACTOR"_kj, "PLAYED"_kj, "PID"_kj, "JAIL"_kj};
    Table table(HEADINGS);
    for (auto actor : message.getRoot<VmStatus>().getActors()) {
      table.add(kj::arr(kj::str(actor.getName()), kj::str(part(actor.getKind())),
                        kj::str(actor.getPid()), kj::str(actor.getJail())));
    }
    return kj::str(table.render(), "The guest ran ", startedAfter / kj::MILLISECONDS,
                   " ms after the start.\n");
  }

 private:
  static kj::StringPtr part(kj::StringPtr kind) {
    if (kind == "broker") return "KVM, guest memory, CPUs, PCI";
    if (kind == "serial") return "the serial port you have just read";
    if (kind == "blk") return "the disk";
    if (kind == "console") return "the virtio console";
    if (kind == "rng") return "the random numbers";
    return kind;
  }

  capnp::MallocMessageBuilder message;
  kj::Duration startedAfter = 0 * kj::MILLISECONDS;
};

}  // namespace

ExitCode demoCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("demo",
                   "Boots the embedded guest, which tries every device and says what passed.", "",
                   "troupe demo", "print one JSON object at the end, and nothing before");
  kj::StringPtr said = "scratch";  // the guest may write to its disks
  kj::StringPtr jail = "on";
  kj::StringPtr profileDir = "";
  line.add({"cmdline", "TEXT", "command line of the guest, instead of: scratch", false,
            [&](kj::StringPtr word) { said = word; }, nullptr, /*mayBeEmpty=*/true});
  line.add({"jail", "on|off", "jail every actor, on unless given; off is for debugging only", false,
            [&](kj::StringPtr word) {
              parseOnOff("--jail", word);
              jail = word;
            }});
  line.add({"profile-dir", "DIR", "folder of sandbox profiles that replace those built in", false,
            [&](kj::StringPtr word) { profileDir = word; }});
  line.exits("0 every check passed, 1 one failed, others as for `troupe run`");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  bool judged = strstr(said.cStr(), "end=") == nullptr;
  auto cmdline = judged ? kj::str(said, " ", VERDICT) : kj::str(said);
  auto kernel = writePayload();
  auto disk = makeScratchDisk();
  auto console = makeMemFd("troupe-demo-console");
  auto serial = makeMemFd("troupe-demo-serial");  // with --json

  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  config.setKernel(pathOf(kernel));
  config.setMemory("128M");
  config.setCmdline(cmdline);
  config.initConsoles(1)[0].setWhere(kj::str("file=", pathOf(console)));
  if (line.json()) config.setSerial(kj::str("file=", pathOf(serial)));
  config.setJail(jail);
  config.setProfileDir(profileDir);
  config.setOnReboot("exit");  // a reset is how the guest tells that a check failed
  auto scratch = config.initDisks(1)[0];
  scratch.setPath(pathOf(disk));
  scratch.setId("scratch");

  auto say = [&](kj::String text) {
    if (!line.json()) printOut(text);
  };
  say(kj::str("troupe demo: a VM with 1 CPU, 128M of RAM, a disk of ", SCRATCH_BYTES >> 20,
              "M, a virtio console and random numbers.\nThe embedded guest tries each and "
              "says what passed:\n\n"));
  auto& clock = kj::systemPreciseMonotonicClock();
  auto begun = clock.now();
  Cast cast;
  auto end =
      hostVm(config, Begin::RUNNING, [&](RunningVm& vm) { cast.note(vm, clock.now() - begun); });
  auto took = (clock.now() - begun) / kj::MILLISECONDS;
  if (line.json()) {
    printOut(kj::str(JsonLine()
                         .truth("passed", judged && end.exit == ExitCode::POWERED_OFF)
                         .number("exitCode", uint64_t(end.exit))
                         .number("tookMs", uint64_t(took))
                         .number("writtenBytes", writtenBytes(disk))
                         .json("actors", cast.toJson())
                         .text("said", textIn(serial))
                         .render(),
                     "\n"));
  }
  if (judged && end.exit == ExitCode::GUEST_RESET) {
    UserError(codes::DEMO_FAILED,
              kj::str("the embedded guest found something that does not work; its rows above that "
                      "begin with FAIL say what"))
        .advice("see", "troupe doctor")
        .raise();
  }
  if (end.exit != ExitCode::POWERED_OFF) {
    printError(kj::str("troupe: ", end.message, "\n"));
    return end.exit;
  }
  struct stat spoken;
  KJ_SYSCALL(fstat(console, &spoken));
  say(kj::str("\ntroupe demo: these processes played the VM",
              jail == "on"
                  ? ", each in a jail of its own that was looked at from\noutside before the guest "
                    "ran: seven namespaces, an empty root, no capability, a system call filter\n"
                  : " (without jails)\n",
              cast.tell(), "It wrote ", writtenBytes(disk) >> 10, " KiB to its disk and ",
              spoken.st_size, " bytes to its console, and powered off after ", took, " ms.\n"));
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
