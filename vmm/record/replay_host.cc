#include "vmm/record/replay_host.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/balloon/balloon_profile.h"
#include "devices/blk/blk_profile.h"
#include "devices/console/console_profile.h"
#include "devices/net/net_profile.h"
#include "devices/rng/rng_profile.h"
#include "devices/virtio/flight_log.h"
#include "devices/vsock/vsock_profile.h"
#include "vmm/cli/commands.h"
#include "vmm/record/process_rest.h"
#include "vmm/record/replay_limits.h"
#include "vmm/record/replay_ram.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"
#include "vmm/words/wait_status.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_LINE = 1000;  // of what is shown; an event's has a tenth of it
constexpr uint16_t MOST_OUTPUTS = 8;
constexpr uint64_t MOST_DISK_BYTES = uint64_t(1) << 56;
constexpr uint64_t PAGE_BYTES = 4096;

struct Kind {
  kj::StringPtr name;
  kj::StringPtr program;
  const sandbox::Profile& profile;
};

const Kind KINDS[] = {
    {"balloon"_kj, "troupe-balloon"_kj, BALLOON_PROFILE},
    {"blk"_kj, "troupe-blk"_kj, BLK_PROFILE},
    {"console"_kj, "troupe-console"_kj, CONSOLE_PROFILE},
    {"net"_kj, "troupe-net"_kj, NET_PROFILE},
    {"rng"_kj, "troupe-rng"_kj, RNG_PROFILE},
    {"vsock"_kj, "troupe-vsock"_kj, VSOCK_PROFILE},
};

kj::Maybe<const Kind&> kindOf(kj::StringPtr name) {
  for (auto& kind : KINDS)
    if (kind.name == name) return kind;
  return nullptr;
}

kj::Exception unknownKind(kj::StringPtr name) {
  auto names = kj::strArray(
      KJ_MAP(kind, KINDS) { return kind.name; }, ", ");
  return UserError(codes::REPLAY_KIND, kj::str("a device of kind ", quote(name),
                                               " cannot be replayed; kinds that can are ", names))
      .toException();
}

void requirePages(uint64_t bytes, uint64_t most, kj::StringPtr what) {
  KJ_REQUIRE(bytes % PAGE_BYTES == 0 && bytes <= most, "no replay needs this", what, bytes);
}

kj::Maybe<kj::String> textOf(bool isThere, capnp::Text::Reader text) {
  if (!isThere) return nullptr;
  return escape(text, LONGEST_LINE);
}

}  // namespace

ReplayMemories::ReplayMemories()
    : flight(sandbox::makeUnsizedMemory("flight")),
      answers(sandbox::makeUnsizedMemory("answers")),
      ram(sandbox::makeUnsizedMemory("replayed-ram")),
      queues(kj::heapArray<Queue>(virtio::FlightLog::MAX_QUEUES)) {
  for (auto& queue : queues) {
    for (auto* one : {&queue.kick, &queue.call}) {
      int fd;
      KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      *one = kj::AutoCloseFd(fd);
    }
  }
}

ReplayEnds makeReplaySockets() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

ReplayEnds makeReplayLog() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC | O_NONBLOCK));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

// A device that is replayed: its process, and what it holds in place of the host's.
struct ReplayHostActor::Device {
  const sandbox::Profile& profile;
  kj::Vector<kj::AutoCloseFd> files = {};  // own what `fds` name
  kj::AutoCloseFd nobody = {};             // of whom a connector is asked
  kj::Vector<sandbox::HandedFd> fds = {};
  kj::Own<sandbox::Child> process = {};
  kj::Own<ChildLog> words = {};
  kj::Maybe<int> status = nullptr;
  kj::Promise<void> watching = nullptr;

  void hand(kj::StringPtr name, kj::uint index, kj::AutoCloseFd file) {
    fds.add(sandbox::HandedFd{name, index, file});
    files.add(kj::mv(file));
  }
};

ReplayHostActor::ReplayHostActor(kj::AsyncIoContext& io, sandbox::Launcher& launcher,
                                 ReplayMemories& memories, kj::AutoCloseFd pipe, int devices,
                                 kj::StringPtr path, Show form,
                                 kj::Own<kj::PromiseFulfiller<ReplayReport>> ended)
    : io(io),
      launcher(launcher),
      memories(memories),
      pipe(kj::mv(pipe)),
      devices(devices),
      path(kj::heapString(path)),
      form(form),
      ended(kj::mv(ended)) {}

ReplayHostActor::~ReplayHostActor() noexcept(false) {}

kj::Promise<void> ReplayHostActor::show(ShowContext context) {
  for (auto line : context.getParams().getLines()) {
    auto text = escape(line, LONGEST_LINE);
    if (form == Show::AS_JSON) text = JsonLine().text("event", text).render();
    printOut(kj::str(text, "\n"));
  }
  return kj::READY_NOW;
}

kj::Promise<void> ReplayHostActor::prepare(PrepareContext context) {
  KJ_REQUIRE(plan.get() == nullptr, "a replay is prepared once");
  auto given = context.getParams().getPlan();
  KJ_IF_MAYBE (kind, kindOf(given.getKind())) {
    device = kj::heap<Device>(Device{kind->profile});
  } else {
    ended->reject(unknownKind(given.getKind()));
    return kj::NEVER_DONE;
  }
  requirePages(given.getFlightBytes(), MOST_FLIGHT_BYTES, "memory to record in");
  requirePages(given.getAnswersBytes(), MOST_ANSWER_BYTES, "memory for answers");
  requirePages(given.getRamBytes(), ReplayRam::MOST_BYTES, "RAM");
  requirePages(given.getDiskBytes(), MOST_DISK_BYTES, "disk");
  KJ_REQUIRE(given.getOutputs() <= MOST_OUTPUTS, "no console has so many ports");
  plan = kj::heap<capnp::MallocMessageBuilder>();
  plan->setRoot(given);
  sandbox::fixSize(memories.flight, given.getFlightBytes());
  sandbox::fixSize(memories.answers, given.getAnswersBytes());
  sandbox::fixSize(memories.ram, given.getRamBytes());
  return kj::READY_NOW;
}

kj::Promise<void> ReplayHostActor::launch(LaunchContext context) {
  KJ_REQUIRE(plan.get() != nullptr && device->process.get() == nullptr,
             "a device is started once, when all is prepared");
  auto wanted = plan->getRoot<ReplayPlan>().asReader();
  kj::StringPtr program = KJ_ASSERT_NONNULL(kindOf(wanted.getKind())).program;
  auto log = makeReplayLog();
  device->hand("rpc", 0, kj::mv(pipe));
  device->hand("log", 0, kj::mv(log.theirs));
  device->fds.add(
      sandbox::HandedFd{"flight", 0, memories.flight.writable, wanted.getFlightBytes()});
  device->fds.add(
      sandbox::HandedFd{"answers", 0, memories.answers.writable, wanted.getAnswersBytes()});
  if (wanted.getDiskBytes() > 0) {
    auto disk = sandbox::makeSharedMemory("replayed-disk", wanted.getDiskBytes());
    device->hand("disk", 0, kj::mv(disk.writable));
  }
  for (kj::uint i = 0; i < wanted.getOutputs(); i++) {
    int fd;
    KJ_SYSCALL(fd = open("/dev/null", O_WRONLY | O_CLOEXEC | O_APPEND));
    device->hand("out", i, kj::AutoCloseFd(fd));
  }
  if (wanted.getConnector()) {
    auto nobody = makeReplaySockets();
    device->hand("connector", 0, kj::mv(nobody.theirs));
    device->nobody = kj::mv(nobody.ours);
  }
  device->process = launcher.launch(device->profile, devices, program, "the replayed device",
                                    device->fds, context.getParams().getConfig());
  device->words = kj::heap<ChildLog>(io.lowLevelProvider->wrapInputFd(kj::mv(log.ours)), "device",
                                     io.provider->getTimer());
  device->watching = device->process->onExit()
                         .then([this](int status) { device->status = status; })
                         .eagerlyEvaluate(nullptr);
  // It has its own by now, and its pipe is to end with it.
  device->files.clear();
  context.getResults().setReadOnly(device->profile.layers.memory.access ==
                                   sandbox::ProfileMemory::READ_ONLY);
  return device->process->started().catch_([this](kj::Exception&& failure) {
    // Its user's to read, and not in the replayer's words.
    ended->reject(kj::cp(failure));
    kj::throwFatalException(kj::mv(failure));
  });
}

kj::Promise<void> ReplayHostActor::look(LookContext context) {
  KJ_REQUIRE(device.get() != nullptr && device->process.get() != nullptr, "there is no device yet");
  wasResting = device->status == nullptr && isAtRest(device->process->pid());
  auto state = device->status != nullptr ? DeviceState::ENDED
               : wasResting              ? DeviceState::RESTING
                                         : DeviceState::BUSY;
  context.getResults().setState(state);
  return kj::READY_NOW;
}

// Why the device did not do what it did then, as far as its process shows.
kj::String ReplayHostActor::deviceState() {
  if (device.get() == nullptr) return kj::str("nobody knows why");
  KJ_IF_MAYBE (status, device->status) {
    auto said = device->words->lastWords();
    auto refused = device->process->refusedCall();
    return kj::str("the device ", describeWaitStatus(*status),
                   refused == nullptr
                       ? kj::str()
                       : kj::str("; its jail allows no ", KJ_ASSERT_NONNULL(refused).call),
                   said.size() == 0 ? kj::str() : kj::str(": ", said.back()));
  }
  if (wasResting) return kj::str("the device waits, and what it waits for is not in the recording");
  return kj::str("the device did nothing for a minute");
}

kj::Promise<void> ReplayHostActor::finish(FinishContext context) {
  auto outcome = context.getParams().getOutcome();
  ReplayReport report{escape(outcome.getDevice(), 64),
                      outcome.getEvents(),
                      outcome.getChains(),
                      textOf(outcome.hasUnfollowed(), outcome.getUnfollowed()),
                      outcome.getIsCut(),
                      nullptr};
  if (outcome.isDiffers()) {
    auto differs = outcome.getDiffers();
    report.difference = ReplayReport::Difference{
        differs.getEvent(), escape(differs.getWhat(), LONGEST_LINE),
        differs.hasHow() ? escape(differs.getHow(), LONGEST_LINE) : deviceState()};
  }
  ended->fulfill(kj::mv(report));
  return kj::READY_NOW;
}

kj::Promise<void> ReplayHostActor::refuse(RefuseContext context) {
  UserError error(codes::NO_RECORDING, kj::str(quote(path), " is not a recording of a device"));
  error.cause(context.getParams().getWhy()).advice("see", "troupe run --record DEVICE=FILE");
  ended->reject(error.toException());
  return kj::READY_NOW;
}

}  // namespace troupe
