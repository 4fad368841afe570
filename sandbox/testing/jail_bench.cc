#include "sandbox/testing/jail_bench.h"

#include <capnp/message.h>
#include <dirent.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protos/fd_handle.h"
#include "sandbox/testing/sample_profile.h"

namespace troupe::sandbox::testing {
namespace {

kj::AutoCloseFd openProgram() {
  int fd;
  KJ_SYSCALL(fd = open("sandbox/testing/sample_actor", O_RDONLY | O_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

}  // namespace

JailBench::JailBench(LaunchFaults faults, Jail jail, kj::Maybe<const WatchRequest&> watch)
    : context(kj::setupAsyncIo()),
      program(openProgram()),
      jailer(context.unixEventPort, jail, faults, watch) {}

Actor JailBench::launch(Launcher& launcher, const ActorOptions& options) {
  int sockets[2], pipe[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  kj::AutoCloseFd ours(sockets[0]), theirs(sockets[1]);
  KJ_SYSCALL(pipe2(pipe, O_CLOEXEC));
  kj::AutoCloseFd log(pipe[0]), logEnd(pipe[1]);

  capnp::MallocMessageBuilder message;
  message.initRoot<SampleConfig>().setGreeting(options.greeting);
  kj::Vector<HandedFd> fds;
  fds.add(HandedFd{"rpc", 0, theirs});
  fds.add(HandedFd{"log", 0, logEnd});
  KJ_IF_MAYBE (disk, options.disk) {
    fds.add(HandedFd{"disk", 0, *disk});
  }
  const Profile* profile = &SAMPLE_PROFILE;
  KJ_IF_MAYBE (other, options.profile) {
    profile = other;
  }
  auto child = launcher.launch(*profile, program, "sample", options.name, fds,
                               message.getRoot<capnp::AnyPointer>().asReader(), options.cgroup);

  auto stream = context.lowLevelProvider->wrapUnixSocketFd(kj::mv(ours));
  auto client = kj::heap<capnp::TwoPartyClient>(*stream, 16);
  auto sample = client->bootstrap().castAs<Sample>();
  return Actor{kj::mv(child), kj::mv(log), kj::mv(stream), kj::mv(client), kj::mv(sample)};
}

Actor JailBench::start(const ActorOptions& options) {
  Actor actor = launch(options);
  actor.child->started().wait(scope());
  return actor;
}

Handle::Client JailBench::event() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC));
  return kj::heap<FdHandle>(kj::AutoCloseFd(fd));
}

kj::Maybe<int64_t> JailBench::tryCall(Actor& actor, kj::StringPtr call) {
  auto request = actor.sample.tryRequest();
  request.setCall(call);
  kj::Maybe<int64_t> result;
  request.send()
      .then([&](auto response) { result = response.getResult(); }, [](kj::Exception&&) {})
      .wait(scope());
  return result;
}

kj::AutoCloseFd fileWith(kj::StringPtr content) {
  char path[] = "/tmp/sandbox-test-XXXXXX";
  int fd;
  KJ_SYSCALL(fd = mkostemp(path, O_CLOEXEC));
  kj::AutoCloseFd file(fd);
  KJ_SYSCALL(unlink(path));
  kj::FdOutputStream(file.get()).write(content.begin(), content.size());
  return file;
}

size_t openFdCount() {
  DIR* dir = opendir("/proc/self/fd");
  KJ_REQUIRE(dir != nullptr);
  size_t count = 0;
  while (readdir(dir) != nullptr)
    count++;
  closedir(dir);
  return count;
}

}  // namespace troupe::sandbox::testing
