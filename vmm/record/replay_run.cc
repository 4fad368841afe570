#include "vmm/record/replay_run.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/stat.h>

#include "protos/handle.capnp.h"
#include "sandbox/fair_loop.h"
#include "vmm/actors/programs.h"
#include "vmm/channels/peer_stream.h"
#include "vmm/record/replay_host.h"
#include "vmm/record/replay_limits.h"
#include "vmm/record/replayer_profile.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

constexpr uint32_t MOST_CALLS = 4;  // it makes one after the other
constexpr uint64_t LONGEST_MESSAGE_WORDS = 64 * 1024;

struct OpenRecording {
  kj::AutoCloseFd fd;
  uint64_t bytes;
};

OpenRecording openRecording(kj::StringPtr path) {
  auto refuse = [&](kj::StringPtr why) {
    UserError error(codes::NO_RECORDING, kj::str(quote(path), " is not a recording of a device"));
    error.cause(why).advice("see", "troupe run --record DEVICE=FILE").raise();
  };
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) refuse(errnoText(errno));
  kj::AutoCloseFd file(fd);
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  if (!S_ISREG(info.st_mode)) refuse("it is no regular file"_kj);
  if (info.st_size == 0) refuse("it is empty"_kj);
  if (uint64_t(info.st_size) > MOST_RECORDING_BYTES) {
    refuse("it is larger than a recording can be"_kj);
  }
  return {kj::mv(file), uint64_t(info.st_size)};
}

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = LONGEST_MESSAGE_WORDS;
  options.nestingLimit = 16;
  return options;
}

// One replayer, jailed always.
class ReplayRun {
 public:
  ReplayRun(kj::AsyncIoContext& io, kj::StringPtr path, int devices, Show show)
      : io(io), path(path), launcher(io.unixEventPort, sandbox::Jail::ON) {
    auto file = openRecording(path);
    auto pipe = makeReplaySockets();
    auto ofDevice = makeReplaySockets();
    auto log = makeReplayLog();
    capnp::MallocMessageBuilder message;
    auto request = message.initRoot<ReplayRequest>();
    request.setPath(path);
    request.setShow(show != Show::NOTHING);
    request.setBytes(file.bytes);
    auto fds = handedTo(file.fd, pipe.theirs, ofDevice.theirs, log.theirs);
    child = launcher.launch(REPLAYER_PROFILE, openPrograms().front, "troupe-replayer",
                            "the replayer", fds, message.getRoot<capnp::AnyPointer>().asReader());
    words = kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(log.ours)), "replayer",
                               io.provider->getTimer());
    auto outcome = kj::newPromiseAndFulfiller<ReplayReport>();
    ended = kj::mv(outcome.promise);
    stream = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(pipe.ours));
    messages = kj::heap<PeerStream>(*stream, MOST_CALLS);
    network = kj::heap<capnp::TwoPartyVatNetwork>(
        *messages, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::SERVER, boundedReading());
    messages->watch(*network);
    rpc.emplace(capnp::makeRpcServer(
        *network, kj::heap<ReplayHostActor>(io, launcher, memories, kj::mv(ofDevice.ours), devices,
                                            path, show, kj::mv(outcome.fulfiller))));
  }
  KJ_DISALLOW_COPY(ReplayRun);

  ReplayReport wait() {
    auto died = child->onExit().then([this](int status) -> ReplayReport { failed(status); });
    return child->started()
        .then([this]() { return kj::mv(ended); })
        .exclusiveJoin(kj::mv(died))
        .wait(io.waitScope);
  }

 private:
  kj::Vector<sandbox::HandedFd> handedTo(int recording, int pipe, int device, int log) {
    kj::Vector<sandbox::HandedFd> fds;
    fds.add(sandbox::HandedFd{"rpc", 0, pipe});
    fds.add(sandbox::HandedFd{"log", 0, log});
    fds.add(sandbox::HandedFd{"device", 0, device});
    fds.add(sandbox::HandedFd{"recording", 0, recording});
    fds.add(sandbox::HandedFd{"flight", 0, memories.flight.writable});
    fds.add(sandbox::HandedFd{"answers", 0, memories.answers.writable});
    fds.add(sandbox::HandedFd{"ram", 0, memories.ram.writable});
    fds.add(sandbox::HandedFd{"ram-reader", 0, memories.ram.readOnly});
    for (kj::uint i = 0; i < memories.queues.size(); i++) {
      fds.add(sandbox::HandedFd{"kick", i, memories.queues[i].kick});
      fds.add(sandbox::HandedFd{"call", i, memories.queues[i].call});
    }
    return fds;
  }

  [[noreturn]] void failed(int status) {
    UserError error(codes::REPLAYER, kj::str("the process that reads the recording ", quote(path),
                                             " ", describeWaitStatus(status)));
    KJ_IF_MAYBE (refused, child->refusedCall()) {
      error.cause(kj::str("its jail allows no ", refused->call));
    }
    for (auto& line : words->lastWords())
      error.cause(line);
    error.raise();
  }

  kj::AsyncIoContext& io;
  kj::StringPtr path;
  ReplayMemories memories;
  sandbox::Launcher launcher;
  kj::Own<sandbox::Child> child;
  kj::Own<ChildLog> words;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<PeerStream> messages;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Maybe<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;
  kj::Promise<ReplayReport> ended = nullptr;
};

}  // namespace

void showRecording(kj::StringPtr path, bool asJson) {
  auto io = sandbox::setupFairIo();
  ReplayRun(io, path, -1, asJson ? Show::AS_JSON : Show::AS_TEXT).wait();
}

ReplayReport replayRecording(kj::StringPtr path, int devices) {
  auto io = sandbox::setupFairIo();
  return ReplayRun(io, path, devices, Show::NOTHING).wait();
}

}  // namespace troupe
