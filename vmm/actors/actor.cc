#include "vmm/actors/actor.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/fd_view.h"

namespace troupe {

namespace {

struct LogPipe {
  kj::AutoCloseFd read;
  kj::AutoCloseFd write;
};

LogPipe makeLogPipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  LogPipe pipe = {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
  // An actor never waits for its log to be read: what does not fit is lost.
  KJ_SYSCALL(fcntl(pipe.write, F_SETFL, O_NONBLOCK));
  return pipe;
}

// What actors map and share beside the guest's memory.
constexpr const char* SHARED[] = {"journal", "kept", "flight"};

sandbox::SharedFile sharedFile(int fd, kj::ArrayPtr<const sandbox::FileRange> ranges) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return {info.st_dev, info.st_ino, ranges};
}

kj::Array<sandbox::SharedFile> journalsAmong(kj::ArrayPtr<const sandbox::HandedFd> fds) {
  kj::Vector<sandbox::SharedFile> files;
  for (auto& fd : fds) {
    for (auto name : SHARED) {
      if (fd.name == name) files.add(sharedFile(fd.fd, nullptr));
    }
  }
  return files.releaseAsArray();
}

kj::Array<sandbox::SharedFile> hostMemoryAmong(kj::ArrayPtr<const sandbox::HandedFd> fds,
                                               kj::ArrayPtr<const sandbox::FileRange> ranges) {
  kj::Vector<sandbox::SharedFile> files;
  for (auto& fd : fds) {
    if (fd.name != "host_memory"_kj) continue;
    files.add(sharedFile(fd.fd, ranges.slice(fd.index, fd.index + 1)));
  }
  return files.releaseAsArray();
}

kj::Own<sandbox::Child> launch(sandbox::Launcher& launcher, ActorStart& start, int log,
                               kj::Maybe<int> group) {
  start.fds.add(sandbox::HandedFd{"log", 0, log});
  return launcher.launch(start.profile, start.executable, start.argv0, start.name, start.fds,
                         start.config, group, start.arguments, start.part);
}

bool listens(int fd) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value != 0;
}

}  // namespace

SocketPair makeSocketPair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

Actor::Actor(kj::AsyncIoContext& io, ActorLauncher& launcher, ActorStart start)
    : actorName(kj::heapString(start.name)),
      actorKind(kj::heapString(start.kind)),
      role(kj::mv(start.role)),
      actorProfile(launcher.launcher.inForce(start.profile)),
      profileFolder(launcher.profileDir.map([](kj::StringPtr dir) { return kj::heapString(dir); })),
      journalFiles(journalsAmong(start.fds)),
      hostRanges(kj::mv(start.hostRanges)),
      hostFiles(hostMemoryAmong(start.fds, hostRanges)),
      begun(nullptr),
      exited(nullptr) {
  auto pipe = makeLogPipe();
  limits = launcher.groups.add(actorName, actorProfile, start.fds);
  process = launch(launcher.launcher, start, pipe.write,
                   limits.map([](auto& group) { return group->fd(); }));
  for (auto& one : start.fds) {
    handedObjects.add(HandedObject{kj::str(one.name), uint32_t(one.index),
                                   sandbox::objectOf(one.fd), listens(one.fd)});
  }
  auto speaker =
      launcher.vm.size() == 0 ? kj::str(actorName) : kj::str(actorName, " of ", launcher.vm);
  messages = kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(pipe.read)), speaker,
                                io.provider->getTimer(), start.noise);
  begun = process->started()
              .catch_([this](kj::Exception&& exception) {
                failure = kj::cp(exception);
                kj::throwFatalException(kj::mv(exception));
              })
              .fork();
  exited = process->onExit()
               .then([this](int waitStatus) {
                 status = waitStatus;
                 return waitStatus;
               })
               .fork();
}

kj::Maybe<kj::StringPtr> Actor::profileDir() const {
  return profileFolder.map([](const kj::String& folder) { return folder.asPtr(); });
}

kj::Maybe<const sandbox::ActorCgroup&> Actor::group() const {
  KJ_IF_MAYBE (group, limits) {
    return **group;
  }
  return nullptr;
}

kj::String Actor::describe() const {
  return role.size() == 0 ? kj::heapString(actorName) : kj::str(actorName, " (", role, ")");
}

}  // namespace troupe
