#include "vmm/company/succession.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/virtio/kept_memory.h"
#include "sandbox/fd_view.h"
#include "sandbox/shared_memory.h"

namespace troupe {

namespace {

// A MiB for counters, a page, and the journals of any device's queues; and what the device itself
// keeps: a console of eight ports 8 MiB. Pages that nobody writes do not exist.
constexpr uint64_t JOURNAL_BYTES = 16 << 20;
constexpr uint64_t SHOWN_BYTES =
    virtio::KeptMemory::QUARANTINE_BYTES + virtio::KeptMemory::SIGNS_BYTES;

kj::AutoCloseFd duplicate(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

struct Pipe {
  kj::AutoCloseFd read;
  kj::AutoCloseFd write;
};

Pipe makePipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC | O_NONBLOCK));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

struct Watched {
  Watched(kj::UnixEventPort& events, int fd)
      : fd(fd), observer(events, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

  // Whoever broke into a process may have written into it; who is dead writes no more.
  kj::Promise<void> untilEnd() {
    for (;;) {
      char bytes[4096];
      ssize_t n = read(fd, bytes, sizeof(bytes));
      if (n == 0) return kj::READY_NOW;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        KJ_REQUIRE(errno == EAGAIN, "a witness cannot be read", errno);
        return observer.whenBecomesReadable().then([this]() { return untilEnd(); });
      }
    }
  }

  int fd;
  kj::UnixEventPort::FdObserver observer;
};

}  // namespace

Succession::Succession(const ActorStart& start, Beside beside, kj::Maybe<kj::StringPtr> line)
    : build(kj::refcounted<Build>(start.executable, start.profile)),
      beside(beside),
      argv0(start.argv0),
      name(kj::heapString(start.name)),
      kind(start.kind),
      role(kj::heapString(start.role)),
      line(line) {
  for (auto& fd : start.fds)
    keep(fd);
  KJ_IF_MAYBE (given, start.config) {
    auto& copy = *config.emplace(kj::heap<capnp::MallocMessageBuilder>());
    copy.setRoot(*given);
  }
  auto journals = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  mapJournals(journals.readOnly);
  fds.add(KeptFd{"journal", 0, kj::mv(journals.writable), 0});
  countersFile = kj::mv(journals.readOnly);
}

Succession::~Succession() noexcept(false) {
  if (mapped.size() > 0) munmap(mapped.begin(), mapped.size());
}

// No access to it ever faults: the file keeps its size for good.
void Succession::mapJournals(int file) {
  void* place = mmap(nullptr, SHOWN_BYTES, PROT_READ, MAP_SHARED, file,
                     virtio::KeptMemory::END - SHOWN_BYTES);
  if (place == MAP_FAILED) KJ_FAIL_SYSCALL("mmap", errno, "the journals");
  mapped = kj::arrayPtr(static_cast<kj::byte*>(place), SHOWN_BYTES);
  requests = &requestsMemory.emplace(virtio::KeptMemory(mapped).quarantine);
}

virtio::VitalSigns Succession::signs(uint8_t place) const {
  return virtio::VitalSigns(virtio::KeptMemory(mapped).signs, place);
}

kj::Own<Succession::Build> Succession::changed(Change change) {
  kj::AutoCloseFd executable = kj::mv(change.executable);
  if (executable == nullptr) executable = duplicate(build->executable);
  const sandbox::Profile* profile = &build->profile;
  kj::Maybe<kj::Own<Build>> keeper;  // of a profile that another change brought
  KJ_IF_MAYBE (profiles, change.profiles) {
    profile = &(*profiles)->of(KJ_REQUIRE_NONNULL(builtInOf(profile->actor), "no such actor"));
  } else if (build->ownProfiles != nullptr) {
    keeper = kj::addRef(*build);
  } else {
    KJ_IF_MAYBE (owner, build->before) {
      keeper = kj::addRef(**owner);
    }
  }
  auto next = kj::refcounted<Build>(executable.get(), *profile);
  next->ownExecutable = kj::mv(executable);
  next->ownProfiles = kj::mv(change.profiles);
  next->before = kj::mv(keeper);
  return next;
}

void Succession::keep(const sandbox::HandedFd& fd) {
  fds.add(KeptFd{fd.name, fd.index, duplicate(fd.fd), fd.memory});
}

void Succession::exchange(kj::StringPtr wanted, kj::AutoCloseFd fd) {
  for (auto& kept : fds) {
    if (kept.name != wanted) continue;
    kept.fd = kj::mv(fd);
    return;
  }
  KJ_FAIL_REQUIRE("no such fd was kept", wanted);
}

bool hasFd(const sandbox::Profile& profile, kj::StringPtr wanted) {
  for (size_t i = 0; i < profile.fdCount; i++) {
    if (wanted == profile.fds[i].name) return true;
  }
  return false;
}

Succession::Member Succession::launch(kj::AsyncIoContext& io, ActorLauncher& launcher, int before) {
  return launch(io, launcher, *build, before);
}

Succession::Member Succession::launch(kj::AsyncIoContext& io, ActorLauncher& launcher, Build& with,
                                      int before) {
  ActorStart start = {with.profile, with.executable,      argv0, name,
                      kind,         kj::heapString(role), {},    nullptr};
  for (auto& kept : fds)
    start.fds.add(sandbox::HandedFd{kept.name, kept.index, kept.fd, kept.memory});
  KJ_IF_MAYBE (message, config) {
    start.config = (*message)->getRoot<capnp::AnyPointer>().asReader();
  }
  start.part = next;
  next = sandbox::Part::SUCCESSOR;
  auto rpc = makeSocketPair();
  start.fds.add(sandbox::HandedFd{"rpc", 0, rpc.theirs});
  auto witness = makePipe();
  bool waits = before >= 0 && hasFd(with.profile, "witness") && hasFd(with.profile, "before");
  if (waits) start.fds.add(sandbox::HandedFd{"before", 0, before});
  if (hasFd(with.profile, "witness")) start.fds.add(sandbox::HandedFd{"witness", 0, witness.write});
  SocketPair called;
  KJ_IF_MAYBE (fd, line) {
    called = makeSocketPair();
    start.fds.add(sandbox::HandedFd{*fd, 0, called.theirs});
  }
  auto object = sandbox::objectOf(rpc.ours);
  Member member = {kj::addRef(with),     kj::heap<Actor>(io, launcher, kj::mv(start)),
                   kj::mv(rpc.ours),     kj::mv(object),
                   kj::mv(witness.read), kj::mv(called.ours)};
  member.waits = waits;
  return member;
}

kj::Promise<void> untilAllHaveLetGo(kj::UnixEventPort& events, int witness) {
  auto watched = kj::heap<Watched>(events, witness);
  auto& borrowed = *watched;
  return borrowed.untilEnd().attach(kj::mv(watched));
}

}  // namespace troupe
