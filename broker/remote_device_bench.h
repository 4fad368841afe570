#pragma once

#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "broker/pci_fakes.h"
#include "broker/remote_device.h"

// A device process as tests of RemoteDevice have it: a script at the other end of a real pipe.
namespace troupe::broker {

// What a test's device answers; by default it is a well-behaved one with two queues.
struct Script {
  std::function<void(DeviceInfo::Builder)> describe = [](DeviceInfo::Builder info) {
    info.setDeviceType(2);
    info.setFeatures(0x30000000);
    info.setQueueSizes({256, 64});
    info.initConfig(16);
    info.initConfigWriteMask(16);
  };
  bool answersActivate = true;
  bool answersReset = true;
  bool answersConfig = true;
  bool answersEvents = true;
  bool answersReports = true;
  bool answersHandOver = true;
  bool answersTakeOver = true;
  std::function<void(DeviceReport::Builder)> report = [](DeviceReport::Builder) {};
  bool refuses = false;
  int blocks = -1;  // which eventfd it makes blocking, of queue 0's kick and call, queue 1's, …
};

class ScriptedDevice final: public Device::Server {
 public:
  explicit ScriptedDevice(Script& script) : script(script) {}

  kj::Promise<void> describe(DescribeContext context) override {
    script.describe(context.getResults().initInfo());
    return kj::READY_NOW;
  }
  kj::Promise<void> attach(AttachContext context) override {
    KJ_REQUIRE(!script.refuses, "no memory\nhere");
    auto params = context.getParams();
    host = params.getHost();
    auto memory = params.getMemory();
    readOnlyMemory = memory.getReadOnly();
    for (auto region : memory.getRegions()) {
      regions.add(RamRegion{region.getGuestAddress(), region.getFileOffset(), region.getSize()});
    }
    if (!memory.hasFile()) return kj::READY_NOW;
    fds.add(memory.getFile());
    for (auto queue : params.getQueues()) {
      fds.add(queue.getKick());
      fds.add(queue.getCall());
    }
    auto numbers = kj::heapArrayBuilder<kj::Promise<kj::Maybe<int>>>(fds.size());
    for (auto& fd : fds)
      numbers.add(fd.getFd());
    return kj::joinPromises(numbers.finish()).then([this](auto numbers) {
      for (auto& number : numbers)
        fdNumbers.add(KJ_REQUIRE_NONNULL(number, "no fd"));
      if (script.blocks < 0) return;
      int fd = fdNumbers[1 + script.blocks];  // behind the memory's
      KJ_SYSCALL(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK));
    });
  }
  kj::Promise<void> activate(ActivateContext context) override {
    KJ_REQUIRE(!script.refuses, "cannot start");
    auto params = context.getParams();
    calls.add(kj::str("activate ", params.getQueues().size()));
    activations.add(Activation{params.getNumber(), params.getResumed(), params.getOwnFault()});
    return answer(script.answersActivate);
  }
  kj::Promise<void> reset(ResetContext) override {
    KJ_REQUIRE(!script.refuses, "will not");
    calls.add(kj::str("reset"));
    return answer(script.answersReset);
  }
  kj::Promise<void> writeConfig(WriteConfigContext context) override {
    auto params = context.getParams();
    calls.add(kj::str("config ", params.getOffset(), "+", params.getData().size()));
    return answer(script.answersConfig);
  }
  kj::Promise<void> hostEvent(HostEventContext context) override {
    calls.add(kj::str("size ", context.getParams().getEvent().getConsoleSize().getColumns()));
    return answer(script.answersEvents);
  }

  kj::Promise<void> report(ReportContext context) override {
    script.report(context.getResults().initReport());
    return answer(script.answersReports);
  }

  kj::Promise<void> handOver(HandOverContext) override {
    KJ_REQUIRE(!script.refuses, "will not");
    calls.add(kj::str("hand over"));
    return answer(script.answersHandOver);
  }
  kj::Promise<void> takeOver(TakeOverContext context) override {
    KJ_REQUIRE(!script.refuses, "cannot go on");
    ++takeOvers;
    return answer(script.answersTakeOver).then([this, context]() mutable {
      capnp::MallocMessageBuilder message;
      auto info = message.initRoot<DeviceInfo>();
      script.describe(info);
      context.getResults().setConfig(info.getConfig());
    });
  }

  // What never answers: a promise nobody fulfils.
  kj::Promise<void> answer(bool answers) {
    if (answers) return kj::READY_NOW;
    auto pair = kj::newPromiseAndFulfiller<void>();
    unanswered.add(kj::mv(pair.fulfiller));
    return kj::mv(pair.promise);
  }

  Script& script;
  kj::Maybe<DeviceHost::Client> host;
  bool readOnlyMemory = false;
  kj::Vector<RamRegion> regions;
  kj::Vector<Handle::Client> fds;
  kj::Vector<int> fdNumbers;
  kj::Vector<kj::String> calls;
  uint32_t takeOvers = 0;
  kj::Vector<Activation> activations;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> unanswered;
};

struct NotedClient final: public VirtioDeviceClient {
  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    bool fits = offset <= 16 && data.size() <= 16 - offset;
    changes += fits;
    return fits;
  }
  void needsReset() override { ++needsResets; }
  void resetDone() override { ++resetsDone; }
  uint64_t changes = 0;
  uint64_t needsResets = 0;
  uint64_t resetsDone = 0;
};

// A broker's RemoteDevice and, at the other end of a socket pair, a scripted device.
struct Link {
  explicit Link(Script newScript = Script()) : script(kj::mv(newScript)) {
    int pair[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    peer = io.lowLevelProvider->wrapUnixSocketFd(kj::AutoCloseFd(pair[1]));
    auto owned = kj::heap<ScriptedDevice>(script);
    device = owned.get();
    Device::Client bootstrap = kj::mv(owned);
    network = kj::heap<capnp::TwoPartyVatNetwork>(*peer, 64, capnp::rpc::twoparty::Side::SERVER);
    rpc = kj::heap<capnp::RpcSystem<capnp::rpc::twoparty::VatId>>(
        capnp::makeRpcServer(*network, kj::mv(bootstrap)));
    remote = kj::heap<RemoteDevice>(io, 3, "blk3", kj::AutoCloseFd(pair[0]),
                                    [this](uint16_t index, kj::StringPtr name, kj::StringPtr why) {
                                      losses.add(kj::str(index, " ", name, " ", why));
                                    });
    for (auto& queue : queues) {
      queue = {eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    }
    ram = memfd_create("ram", MFD_CLOEXEC);
  }
  ~Link() noexcept {
    for (auto& queue : queues) {
      close(queue.kick);
      close(queue.call);
    }
    close(ram);
  }

  void start() {
    remote->describe().wait(io.waitScope);
    attach();
  }
  void attach() {
    static const RamRegion pieces[] = {{0, 0, 0x100000}, {0x100000000, 0x100000, 0x200000}};
    attach(RamGrant{RamFile{ram, RamFile::WRITABLE}, kj::heapArray<RamRegion>(pieces)});
  }
  void attach(const RamGrant& grant) { remote->attach(grant, queues, client).wait(io.waitScope); }
  void hangUp() {
    rpc = nullptr;
    network = nullptr;
    peer = nullptr;
  }
  // Writes where the device's messages should be, and then nothing more.
  void sendRaw(kj::ArrayPtr<const kj::byte> bytes) {
    int fd = KJ_ASSERT_NONNULL(peer->getFd());
    bool written = false;
    auto writing = peer->write(bytes.begin(), bytes.size())
                       .then([&]() { written = true; }, [&](kj::Exception&&) { written = true; })
                       .eagerlyEvaluate(nullptr);
    for (int i = 0; i < 1000 && !written; ++i)
      sleep(1);
    ::shutdown(fd, SHUT_WR);
  }
  void sleep(uint64_t ms) {
    io.provider->getTimer().afterDelay(ms * kj::MILLISECONDS).wait(io.waitScope);
  }
  // Turns both ends until neither has anything to do.
  void turn() {
    for (int i = 0; i < 4; ++i)
      io.waitScope.poll();
  }
  std::string called() {
    std::string all;
    for (auto& call : device->calls)
      all += std::string(call.cStr()) + ";";
    return all;
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  Script script;
  ScriptedDevice* device;
  kj::Own<kj::AsyncCapabilityStream> peer;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Own<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;
  NotedClient client;
  QueueFds queues[2];
  int ram;
  kj::Vector<kj::String> losses;
  kj::Own<RemoteDevice> remote;
};

inline std::string failureOf(std::function<void()> action) {
  try {
    action();
  } catch (const kj::Exception& e) {
    return e.getDescription().cStr();
  }
  return "";
}

}  // namespace troupe::broker
