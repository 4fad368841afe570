#include "vmm/record/replayer_main.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/virtio/flight_log.h"
#include "sandbox/actor_setup.h"
#include "vmm/record/event_words.h"
#include "vmm/record/replay.h"
#include "vmm/record/replay_limits.h"
#include "vmm/record/replay_plan.h"

namespace troupe {

namespace {

constexpr size_t LINES_AT_ONCE = 64;
constexpr uint64_t PAGE_BYTES = 4096;

uint64_t wholePages(uint64_t bytes) {
  return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

// Pages of a file that has none yet.
kj::byte* map(int fd, uint64_t bytes, int protection) {
  void* address = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (address == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(memory of a replay)", errno, bytes);
  return static_cast<kj::byte*>(address);
}

// All that the process was handed, and may map from its start on.
struct Handed {
  explicit Handed(const sandbox::ActorSetup& setup)
      : recording(setup.fd("recording")),
        flightFd(setup.fd("flight")),
        answersFd(setup.fd("answers")),
        ramFd(setup.fd("ram")),
        ramReader(setup.fd("ram-reader")),
        device(setup.fd("device")),
        flight(map(flightFd, MOST_FLIGHT_BYTES, PROT_READ)),
        answers(map(answersFd, PAGE_BYTES, PROT_READ | PROT_WRITE)),
        ram(map(ramFd, ReplayRam::MOST_BYTES, PROT_READ | PROT_WRITE)),
        queues(kj::heapArray<ReplayRoom::Queue>(setup.fdCount("kick"))) {
    for (uint32_t i = 0; i < queues.size(); i++)
      queues[i] = {setup.fd("kick", i), setup.fd("call", i)};
  }

  int recording, flightFd, answersFd, ramFd, ramReader, device;
  kj::byte *flight, *answers, *ram;
  kj::Array<ReplayRoom::Queue> queues;
};

void writeWhole(int fd, kj::ArrayPtr<const kj::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    ssize_t written;
    KJ_SYSCALL(written = pwrite(fd, bytes.begin() + done, bytes.size() - done, done));
    done += written;
  }
}

kj::Own<kj::AsyncCapabilityStream> streamOn(kj::AsyncIoContext& io, int fd) {
  return io.lowLevelProvider->wrapUnixSocketFd(fd, kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC);
}

// One recording, told or replayed.
class Replayer {
 public:
  Replayer(kj::AsyncIoContext& io, ReplayHost::Client host, const Handed& handed,
           kj::Own<kj::AsyncCapabilityStream> device, RecordingReader& recording)
      : io(io), host(kj::mv(host)), handed(handed), device(kj::mv(device)), recording(recording) {}

  void show() {
    auto& events = recording.events();
    for (size_t from = 0; from < events.size(); from += LINES_AT_ONCE) {
      size_t count = kj::min(LINES_AT_ONCE, events.size() - from);
      auto request = host.showRequest();
      auto lines = request.initLines(count);
      for (size_t i = 0; i < count; i++) {
        events.with(from + i, [&](FlightEvent::Reader event) {
          lines.set(i, kj::str(from + i + 1, "  ", event.getNanoseconds() / 1000, " us  ",
                               eventWords(event)));
        });
      }
      request.send().wait(io.waitScope);
    }
    finish(ReplayResult{});
  }

  void replay() {
    FlightIndex index;
    index.update(recording.events());
    auto needs = replayNeeds(recording.head(), recording.events(), index);
    auto answers = makeAnswerTable(recording.events(), index, MOST_ANSWER_BYTES);
    auto room = prepare(index, needs, answers);
    writeWhole(handed.answersFd, answers);
    auto request = host.launchRequest();
    request.getConfig().set(needs.config->getRoot<capnp::AnyPointer>().asReader());
    bool readOnly = request.send().wait(io.waitScope).getReadOnly();
    ReplayedDevice replayed(io, kj::mv(device), host, room, readOnly);
    finish(troupe::replay(recording.events(), index, replayed));
  }

 private:
  // As much as the recording had, and what a device that goes astray may add.
  uint64_t flightBytes(const FlightIndex& index) const {
    uint64_t bytes = 0;
    for (size_t i = 0; i < index.end(); i++)
      bytes += recording.events().message(i).size() * sizeof(capnp::word);
    return wholePages(bytes + bytes / 2 + (16 << 20));
  }

  // Of the first memory the device was given; it is given none twice.
  uint64_t ramBytes(const FlightIndex& index) const {
    uint64_t bytes = 0;
    for (size_t i = 0; i < index.end() && bytes == 0; i++) {
      recording.events().with(i, [&](FlightEvent::Reader event) {
        if (event.isAttached()) bytes = ReplayRam::fileBytes(event.getAttached());
      });
    }
    return bytes;
  }

  ReplayRoom prepare(const FlightIndex& index, const ReplayNeeds& needs,
                     kj::ArrayPtr<const kj::byte> answers) {
    auto request = host.prepareRequest();
    auto plan = request.initPlan();
    plan.setKind(recording.head().getKind());
    plan.setFlightBytes(flightBytes(index));
    plan.setAnswersBytes(wholePages(answers.size()));
    plan.setRamBytes(ramBytes(index));
    plan.setDiskBytes(needs.diskBytes);
    plan.setOutputs(needs.outputs);
    plan.setConnector(needs.connector);
    auto head = reinterpret_cast<virtio::AnswerTable::Head*>(handed.answers);
    ReplayRoom room{
        kj::arrayPtr<const kj::byte>(handed.flight, plan.getFlightBytes()), &head->reached,
        RamPlace{handed.ram, plan.getRamBytes(), handed.ramFd, handed.ramReader}, handed.queues};
    request.send().wait(io.waitScope);
    return room;
  }

  void finish(const ReplayResult& result) {
    auto request = host.finishRequest();
    auto outcome = request.initOutcome();
    outcome.setDevice(recording.head().getDevice());
    outcome.setEvents(result.events);
    outcome.setChains(result.chains);
    outcome.setIsCut(recording.isCut());
    KJ_IF_MAYBE (why, result.unfollowed) {
      outcome.setUnfollowed(*why);
    }
    KJ_IF_MAYBE (difference, result.difference) {
      auto differs = outcome.initDiffers();
      differs.setEvent(difference->event);
      differs.setWhat(difference->what);
      KJ_IF_MAYBE (how, difference->how) {
        differs.setHow(*how);
      }
    }
    request.send().wait(io.waitScope);
  }

  kj::AsyncIoContext& io;
  ReplayHost::Client host;
  const Handed& handed;
  kj::Own<kj::AsyncCapabilityStream> device;
  RecordingReader& recording;
};

// What is wrong with a recording: the cause alone, which RecordingReader makes a line of its own.
kj::String causeIn(kj::StringPtr said) {
  constexpr char BEFORE[] = "\n  1. ";
  const char* found = strstr(said.cStr(), BEFORE);
  if (found == nullptr) return kj::heapString(said);
  const char* begin = found + sizeof(BEFORE) - 1;
  const char* end = strchrnul(begin, '\n');
  return kj::heapString(begin, end - begin);
}

void serve(kj::AsyncIoContext& io, ReplayHost::Client host, const Handed& handed,
           kj::Own<kj::AsyncCapabilityStream> device, ReplayRequest::Reader request) {
  auto failure = kj::runCatchingExceptions([&]() {
    RecordingReader recording(request.getPath(), handed.recording, request.getBytes());
    recording.checked([&]() {
      Replayer replayer(io, host, handed, kj::mv(device), recording);
      if (request.getShow()) {
        replayer.show();
      } else {
        replayer.replay();
      }
      return true;
    });
  });
  KJ_IF_MAYBE (why, failure) {
    if (!why->getDescription().startsWith("TRP-rec-")) kj::throwFatalException(kj::mv(*why));
    auto refusal = host.refuseRequest();
    refusal.setWhy(causeIn(why->getDescription()));
    refusal.send().wait(io.waitScope);
  }
}

}  // namespace

void playReplayer() {
  sandbox::ActorSetup setup;
  auto io = kj::setupAsyncIo();
  Handed handed(setup);
  auto device = streamOn(io, handed.device);
  auto stream = streamOn(io, sandbox::RPC_FD);
  setup.enter("ready");
  setup.enter("run");
  capnp::TwoPartyClient client(*stream);
  serve(io, client.bootstrap().castAs<ReplayHost>(), handed, kj::mv(device),
        setup.config<ReplayRequest>());
}

}  // namespace troupe
