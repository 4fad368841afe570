#include "devices/virtio/testing/process_bench.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>

namespace troupe::virtio::testing {

JailedProcess::JailedProcess(const sandbox::Profile& profile, kj::StringPtr program,
                             kj::ArrayPtr<const HandedFd> fds,
                             kj::Maybe<capnp::AnyPointer::Reader> config, kj::StringPtr executable)
    : profile(profile) {
  int sockets[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  kj::AutoCloseFd ours(sockets[0]), theirs(sockets[1]);
  int log[2];
  KJ_SYSCALL(pipe2(log, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd logReader(log[0]), logWriter(log[1]);
  int file;
  KJ_SYSCALL(file = open(executable.cStr(), O_RDONLY | O_CLOEXEC), executable);
  kj::AutoCloseFd programFile(file);

  kj::Vector<HandedFd> handed;
  handed.addAll(fds);
  handed.add(HandedFd{"rpc", 0, theirs});
  handed.add(HandedFd{"log", 0, logWriter});
  process = launcher.launch(profile, programFile, program, "device0", handed, config);
  logPipe = kj::mv(logReader);
  brokerEnd = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(ours));
  process->started().wait(io.waitScope);
}

JailedProcess::~JailedProcess() noexcept(false) {
  char text[4096];
  ssize_t size = read(logPipe, text, sizeof(text));
  if (size > 0) std::cerr << kj::heapString(text, size).cStr();
}

kj::Array<kj::String> JailedProcess::attest(sandbox::Stage stage,
                                            kj::Maybe<const sandbox::SharedFile&> memory) {
  sandbox::AttestOptions options;
  options.stage = stage;
  options.memory = memory;
  return sandbox::attest(profile, process->pid(), options).differences;
}

int JailedProcess::waitForExit() {
  return io.provider->getTimer()
      .timeoutAfter(60 * kj::SECONDS, process->onExit())
      .wait(io.waitScope);
}

ProcessBench::ProcessBench(FakeRam& ram, const sandbox::Profile& profile, kj::StringPtr program,
                           size_t queueCount, kj::ArrayPtr<const HandedFd> fds,
                           kj::Maybe<capnp::AnyPointer::Reader> config, kj::StringPtr executable)
    : JailedProcess(profile, program, fds, config, executable),
      FakeBroker(io, ram, kj::mv(brokerEnd), queueCount) {}

}  // namespace troupe::virtio::testing
