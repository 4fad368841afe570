#include "vmm/succession.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <unistd.h>

#include "sandbox/fd_view.h"
#include "sandbox/shared_memory.h"

namespace troupe {

namespace {

// A MiB for counters, a page, and the journals of any device's queues; and what the device itself
// keeps: a console of eight ports 8 MiB. Pages that nobody writes do not exist.
constexpr uint64_t JOURNAL_BYTES = 16 << 20;

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

Succession::Succession(const ActorStart& start, kj::Maybe<kj::StringPtr> line)
    : profile(start.profile),
      executable(start.executable),
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
  fds.add(KeptFd{"journal", 0, kj::mv(journals.writable), 0});
  countersFile = kj::mv(journals.readOnly);
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

Succession::Member Succession::launch(kj::AsyncIoContext& io, ActorLauncher& launcher) {
  ActorStart start = {profile, executable, argv0, name, kind, kj::heapString(role), {}, nullptr};
  for (auto& kept : fds)
    start.fds.add(sandbox::HandedFd{kept.name, kept.index, kept.fd, kept.memory});
  KJ_IF_MAYBE (message, config) {
    start.config = (*message)->getRoot<capnp::AnyPointer>().asReader();
  }
  auto rpc = makeSocketPair();
  start.fds.add(sandbox::HandedFd{"rpc", 0, rpc.theirs});
  auto witness = makePipe();
  if (hasFd(profile, "witness")) start.fds.add(sandbox::HandedFd{"witness", 0, witness.write});
  SocketPair called;
  KJ_IF_MAYBE (fd, line) {
    called = makeSocketPair();
    start.fds.add(sandbox::HandedFd{*fd, 0, called.theirs});
  }
  auto object = sandbox::objectOf(rpc.ours);
  return {kj::heap<Actor>(io, launcher, kj::mv(start)), kj::mv(rpc.ours), kj::mv(object),
          kj::mv(witness.read), kj::mv(called.ours)};
}

kj::Promise<void> untilAllHaveLetGo(kj::UnixEventPort& events, int witness) {
  auto watched = kj::heap<Watched>(events, witness);
  auto& borrowed = *watched;
  return borrowed.untilEnd().attach(kj::mv(watched));
}

}  // namespace troupe
