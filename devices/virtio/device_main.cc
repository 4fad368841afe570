#include "devices/virtio/device_main.h"

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <kj/debug.h>
#include <malloc.h>
#include <unistd.h>

#include "devices/virtio/device_actor.h"
#include "devices/virtio/kept_memory.h"
#include "devices/virtio/loop_pulse.h"
#include "devices/virtio/quarantine.h"
#include "devices/virtio/ram_mapping.h"
#include "devices/virtio/vital_signs.h"
#include "protos/handle.capnp.h"
#include "sandbox/last_words.h"

namespace troupe::virtio {
namespace {

// The jail of this process, which its setup describes.
class SetupJail final: public ProcessJail {
 public:
  explicit SetupJail(sandbox::ActorSetup& setup) : setup(setup) {}
  int place(kj::StringPtr name, uint32_t index, int fd) override {
    return setup.place(name, index, fd);
  }
  void close(kj::StringPtr name) override { KJ_SYSCALL(::close(setup.fd(name)), name); }
  void enter(kj::StringPtr stage) override { setup.enter(stage); }

 private:
  sandbox::ActorSetup& setup;
};

// A broker sends addresses and sizes; 512 KiB hold them many times over.
constexpr size_t MESSAGE_LIMIT_WORDS = 64 << 10;

capnp::ReaderOptions limits() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = MESSAGE_LIMIT_WORDS;
  return options;
}

// What the serving filters need not allow when it is done, or chosen, before they are installed.
void prepareProcess() {
  // One heap for all threads, and no block outside of it: nothing is mapped and unmapped.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_MAX, 0);
  // The first exception of a process initializes the unwinder, which ends in a futex call.
  try {
    throw 0;
  } catch (int) {
  }
}

// The memory that outlives this process: a page in which it counts what its queues do; if somebody
// takes its place, the journals in which it notes what they have in flight, how it is, and what its
// engine keeps.
class JournalMemory {
 public:
  explicit JournalMemory(sandbox::ActorSetup& setup) {
    if (setup.fdCount("journal") == 0) return;
    file = kj::AutoCloseFd(setup.fd("journal"));
    off_t size;
    KJ_SYSCALL(size = lseek(file, 0, SEEK_END));
    KJ_REQUIRE(size >= off_t(sizeof(CounterPage)), "no room for counters", size);
    auto& mapped = mapping.emplace(file, RamAccess::WRITABLE, 0, size);
    auto all = kj::arrayPtr(mapped.begin(), size);
    counters = *reinterpret_cast<CounterPage*>(all.begin());
    size_t begin = kj::min(all.size(), QUEUE_JOURNALS_BYTES);
    kept = all.slice(begin, all.size());
    auto rest = all.slice(sizeof(CounterPage), begin);
    if (rest.size() == 0) return;
    static_assert(KeptMemory::END == QUEUE_JOURNALS_BYTES, "`troupe` looks for its part there");
    KeptMemory parts(rest);
    journals = parts.journals;
    quarantine.emplace(parts.quarantine);
    signs = parts.signs;
  }
  KJ_DISALLOW_COPY(JournalMemory);

  // Once all that takes fds of its own has them: where this one was is nothing of theirs.
  void closeFile() { file = nullptr; }

  kj::Maybe<CounterPage&> counters;
  kj::ArrayPtr<kj::byte> journals;  // empty: nobody takes this process's place
  EngineMemory kept;                // likewise
  kj::Maybe<Quarantine> quarantine;
  kj::ArrayPtr<kj::byte> signs;

 private:
  kj::AutoCloseFd file;
  kj::Maybe<Mapping> mapping;
};

// Memory of the flight recorder's, and answers for a device that is replayed.
class FlightMemory {
 public:
  explicit FlightMemory(sandbox::ActorSetup& setup) {
    if (setup.fdCount("flight") == 0) return;
    auto bytes = map(setup, "flight", RamAccess::WRITABLE, events);
    kj::ArrayPtr<kj::byte> known;
    if (setup.fdCount("answers") > 0) known = map(setup, "answers", RamAccess::READ_ONLY, answers);
    log.emplace(bytes, known);
  }
  KJ_DISALLOW_COPY(FlightMemory);

  kj::Maybe<FlightLog&> recorder() {
    return log.map([](FlightLog& log) -> FlightLog& { return log; });
  }

 private:
  static kj::ArrayPtr<kj::byte> map(sandbox::ActorSetup& setup, kj::StringPtr name,
                                    RamAccess access, kj::Maybe<Mapping>& mapping) {
    kj::AutoCloseFd file(setup.fd(name));
    off_t size;
    KJ_SYSCALL(size = lseek(file, 0, SEEK_END), name);
    auto& mapped = mapping.emplace(file, access, 0, size);
    return kj::arrayPtr(mapped.begin(), size);
  }

  kj::Maybe<Mapping> events;
  kj::Maybe<Mapping> answers;
  kj::Maybe<FlightLog> log;
};

// The broker's messages, up to their end. The end is told to the process and not to Cap'n Proto,
// which would throw, trace the stack and answer into the closed pipe, all just before the exit.
class MessagesToTheEnd final: public capnp::MessageStream {
 public:
  explicit MessagesToTheEnd(kj::AsyncCapabilityStream& stream)
      : inner(stream), ended(kj::newPromiseAndFulfiller<void>()) {}

  // Once.
  kj::Promise<void> onEnd() { return kj::mv(ended.promise); }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override {
    using Read = kj::Maybe<capnp::MessageReaderAndFds>;
    return inner.tryReadMessage(fdSpace, options, scratchSpace)
        .then([this](Read&& message) -> kj::Promise<Read> {
          if (message != nullptr) return kj::mv(message);
          ended.fulfiller->fulfill();
          return kj::NEVER_DONE;
        });
  }

  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override {
    return inner.writeMessage(fds, segments);
  }

  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override {
    return inner.writeMessages(messages);
  }

  kj::Maybe<int> getSendBufferSize() override { return inner.getSendBufferSize(); }
  kj::Promise<void> end() override { return inner.end(); }

 private:
  capnp::AsyncCapabilityMessageStream inner;
  kj::PromiseFulfillerPair<void> ended;
};

// Ends the process. Leaving without taking things apart needs no system call but the exit, and once
// the broker is gone nobody is left to answer to.
[[noreturn]] void serve(kj::AsyncIoContext& io, DeviceEngine& engine, sandbox::ActorSetup& setup,
                        JournalMemory& kept, kj::Maybe<FlightLog&> flight) {
  SetupJail jail(setup);
  auto quarantine = kept.quarantine.map([](Quarantine& one) -> Quarantine& { return one; });
  Pulse pulse;
  auto actor =
      kj::heap<DeviceActor>(engine, jail, kept.journals, kept.counters, flight, quarantine, pulse);
  auto& served = *actor;
  auto failure = actor->onFailure();
  auto showing = actor->onReady()
                     .then([&](uint8_t place) {
                       if (kept.signs.size() == 0) return;
                       VitalSigns signs(kept.signs, place);
                       pulse.showIn(signs.word(0));
                       showLoop(pulse);
                       engine.showIn(signs);
                     })
                     .eagerlyEvaluate(nullptr);
  auto stream = io.lowLevelProvider->wrapUnixSocketFd(sandbox::RPC_FD,
                                                      kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC);
  MessagesToTheEnd messages(*stream);
  capnp::TwoPartyVatNetwork network(messages, MAX_FDS_PER_MESSAGE,
                                    capnp::rpc::twoparty::Side::SERVER, limits());
  auto rpc = capnp::makeRpcServer(network, kj::mv(actor));
  rpc.setFlowLimit(MESSAGE_LIMIT_WORDS);

  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 network.onDisconnect()
                     .exclusiveJoin(messages.onEnd())
                     .exclusiveJoin(kj::mv(failure))
                     .wait(io.waitScope);
                 if (!served.hasHandedOver()) engine.finish().wait(io.waitScope);
               })) {
    sandbox::sayLastWords("the device ends", *exception);
    _exit(1);
  }
  _exit(0);
}

}  // namespace

int deviceMain(EngineFactory factory) {
  return keepingDeviceMain([&](kj::AsyncIoContext& io, sandbox::ActorSetup& setup, EngineMemory) {
    return factory(io, setup);
  });
}

int keepingDeviceMain(KeepingEngineFactory factory) {
  prepareProcess();
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 sandbox::ActorSetup setup;
                 auto io = kj::setupAsyncIo();
                 JournalMemory memory(setup);
                 auto engine = factory(io, setup, memory.kept);
                 memory.closeFile();
                 FlightMemory flight(setup);
                 // All come in attach(): guest RAM, and two for each queue.
                 setup.expectFds(1 + 2 * engine->describe().queueSizes.size());
                 serve(io, *engine, setup, memory, flight.recorder());
               })) {
    sandbox::sayLastWords("the device could not start", *exception);
  }
  return 1;
}

}  // namespace troupe::virtio
