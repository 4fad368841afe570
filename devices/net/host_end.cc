#include "devices/net/host_end.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/frame_backend.h"
#include "devices/net/stream_backend.h"

namespace troupe::net {
namespace {

constexpr uint32_t LEAST_CAPTURED = 64;  // of a frame

kj::Array<int> fdsOf(NetConfig::Reader config, sandbox::ActorSetup& setup) {
  kj::StringPtr name = config.getBackend() == NetConfig::Backend::TAP ? "tap"_kj : "socket"_kj;
  uint16_t pairs = config.getQueuePairs();
  KJ_REQUIRE(pairs >= 1 && pairs == setup.fdCount(name),
             "TRP-net-102: a network device has an fd of its backend for each queue pair", pairs,
             setup.fdCount(name));
  KJ_REQUIRE(pairs == 1 || config.getBackend() != NetConfig::Backend::STREAM,
             "TRP-net-102: a network device on a stream has one queue pair", pairs);
  auto fds = kj::heapArray<int>(pairs);
  for (uint16_t i = 0; i < pairs; i++) {
    fds[i] = setup.fd(name, i);
    int flags;
    KJ_SYSCALL(flags = fcntl(fds[i], F_GETFL));
    KJ_SYSCALL(fcntl(fds[i], F_SETFL, flags | O_NONBLOCK));
  }
  return fds;
}

int typeOf(int socket) {
  int type = 0;
  socklen_t size = sizeof(type);
  KJ_SYSCALL(getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size),
             "TRP-net-106: the network's backend is no socket");
  return type;
}

kj::Own<Backend> socketBackend(NetConfig::Reader config, int fd) {
  int type = typeOf(fd);
  if (config.getBackend() == NetConfig::Backend::STREAM) {
    KJ_REQUIRE(type == SOCK_STREAM, "TRP-net-106: the network's socket is no stream", type);
    return kj::heap<StreamBackend>(fd);
  }
  KJ_REQUIRE(type == SOCK_SEQPACKET || type == SOCK_DGRAM,
             "TRP-net-106: the network's socket does not keep messages apart", type);
  auto headers =
      config.getSocketHasHeaders() ? FrameBackend::Headers::FIRST : FrameBackend::Headers::NONE;
  return kj::heap<FrameBackend>(fd, headers);
}

kj::Own<Capture> makeCapture(NetConfig::Reader config, int fd, kj::Maybe<uint64_t&> end,
                             bool isAnothers) {
  KJ_REQUIRE(config.getCaptureFrameBytes() >= LEAST_CAPTURED &&
                 config.getCaptureBytes() >= Capture::FILE_HEADER_BYTES,
             "TRP-net-108: of each frame at least 64 bytes are captured, into a file of 24 or more",
             config.getCaptureFrameBytes(), config.getCaptureBytes());
  off_t size;
  KJ_SYSCALL(size = lseek(fd, 0, SEEK_END), "TRP-net-107: captured frames go to a regular file");
  uint64_t most = config.getCaptureBytes();
  uint32_t ofEach = config.getCaptureFrameBytes();
  KJ_IF_MAYBE (kept, end) {
    if (isAnothers) return kj::heap<Capture>(fd, most, ofEach, *kept);
    return kj::heap<Capture>(fd, most, ofEach, size, *kept);
  }
  KJ_REQUIRE(size == 0, "TRP-net-107: the file for captured frames is not empty", size);
  return kj::heap<Capture>(fd, most, ofEach);
}

}  // namespace

HostEnd::HostEnd(NetConfig::Reader config, sandbox::ActorSetup& setup,
                 kj::Maybe<uint64_t&> captureEnd)
    : isTap(config.getBackend() == NetConfig::Backend::TAP) {
  bool isReplayed = setup.fdCount("answers") > 0;
  if (isReplayed) {
    KJ_REQUIRE(config.getQueuePairs() >= 1 && config.getQueuePairs() <= MAX_PAIRS,
               "TRP-net-102: a network device has 1 to 15 queue pairs", config.getQueuePairs());
    for (uint16_t i = 0; i < config.getQueuePairs(); i++)
      recorded.add(kj::heap<FlightBackend>(nullptr));
    return;
  }
  openBackends(config, setup, captureEnd);
  if (setup.fdCount("flight") == 0) return;
  for (auto& backend : backends)
    recorded.add(kj::heap<FlightBackend>(backend.get()));
}

void HostEnd::openBackends(NetConfig::Reader config, sandbox::ActorSetup& setup,
                           kj::Maybe<uint64_t&> captureEnd) {
  auto fds = fdsOf(config, setup);
  auto made = kj::heapArrayBuilder<kj::Own<Backend>>(fds.size());
  for (int fd : fds) {
    if (isTap) {
      made.add(kj::heap<FrameBackend>(fd, FrameBackend::Headers::FIRST));
    } else {
      made.add(socketBackend(config, fd));
    }
  }
  backends = made.finish();
  if (isTap) tap = kj::heap<TapQueues>(fds);
  if (config.getCapture())
    capture = makeCapture(config, setup.fd("pcap"), captureEnd, setup.isSuccessor());
}

NetEngine::Host HostEnd::host() {
  NetEngine::Host result;
  bool isRecorded = recorded.size() > 0;
  result.backends = kj::heapArray<Backend*>(isRecorded ? recorded.size() : backends.size());
  for (size_t i = 0; i < result.backends.size(); i++)
    result.backends[i] = isRecorded ? recorded[i].get() : backends[i].get();
  result.recorded = KJ_MAP(one, recorded) {
    return one.get();
  };
  result.isTap = isTap;
  KJ_IF_MAYBE (queues, tap) {
    result.tap = queues->get();
  }
  KJ_IF_MAYBE (file, capture) {
    result.capture = file->get();
  }
  return result;
}

}  // namespace troupe::net
