#include "broker/remote_device.h"

#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "broker/pci_fakes.h"

namespace troupe::broker {
namespace {

// What a test's device answers; by default it is a well-behaved one with two queues.
struct Script {
  std::function<void(DeviceInfo::Builder)> describe = [](DeviceInfo::Builder info) {
    info.setDeviceType(2);
    info.setFeatures(0x30000000);
    info.setQueueSizes({256, 64});
    info.setConfig(kj::heapArray<kj::byte>(16));
    info.setConfigWriteMask(kj::heapArray<kj::byte>(16));
  };
  bool answersActivate = true;
  bool answersReset = true;
  bool answersConfig = true;
  bool answersEvents = true;
  bool refuses = false;
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
    fds.add(params.getMemory().getFile());
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
    });
  }
  kj::Promise<void> activate(ActivateContext context) override {
    KJ_REQUIRE(!script.refuses, "cannot start");
    calls.add(kj::str("activate ", context.getParams().getQueues().size()));
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

  // What never answers: a promise nobody fulfils.
  kj::Promise<void> answer(bool answers) {
    if (answers) return kj::READY_NOW;
    auto pair = kj::newPromiseAndFulfiller<void>();
    unanswered.add(kj::mv(pair.fulfiller));
    return kj::mv(pair.promise);
  }

  Script& script;
  kj::Maybe<DeviceHost::Client> host;
  kj::Vector<Handle::Client> fds;
  kj::Vector<int> fdNumbers;
  kj::Vector<kj::String> calls;
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
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
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
    static const RamPiece pieces[] = {{0, 0, 0x100000}, {0x100000000, 0x100000, 0x200000}};
    remote->attach({ram, pieces}, queues, client).wait(io.waitScope);
  }
  void hangUp() {
    rpc = nullptr;
    network = nullptr;
    peer = nullptr;
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

kj::Array<QueueSettings> oneQueue() {
  auto queues = kj::heapArray<QueueSettings>(1);
  queues[0] = {0, 8, 0x1000, 0x2000, 0x3000};
  return queues;
}

std::string failureOf(std::function<void()> action) {
  try {
    action();
  } catch (const kj::Exception& e) {
    return e.getDescription().cStr();
  }
  return "";
}

ino_t inodeOf(int fd) {
  struct stat status;
  KJ_SYSCALL(fstat(fd, &status));
  return status.st_ino;
}

TEST(RemoteDevice, DescribesAndAttachesWithEveryFdInItsPlace) {
  Link link;
  auto description = link.remote->describe().wait(link.io.waitScope);
  EXPECT_EQ(description.deviceType, 2);
  ASSERT_EQ(description.queueSizes.size(), 2);
  EXPECT_EQ(description.queueSizes[1], 64);
  EXPECT_EQ(description.config.size(), 16);
  link.attach();
  ASSERT_EQ(link.device->fdNumbers.size(), 5);
  EXPECT_EQ(inodeOf(link.device->fdNumbers[0]), inodeOf(link.ram));
  uint64_t one = 1;
  ASSERT_EQ(write(link.device->fdNumbers[4], &one, 8), 8);
  EXPECT_TRUE(drainEventFd(link.queues[1].call));
}

TEST(RemoteDevice, BRK01ADescriptionThatBreaksARuleIsRefusedByName) {
  struct Case {
    const char* says;
    std::function<void(DeviceInfo::Builder)> spoil;
  };
  const std::vector<Case> cases = {
      {"32 queues",
       [](DeviceInfo::Builder info) {
         for (auto i : kj::indices(info.initQueueSizes(32)))
           info.getQueueSizes().set(i, 8);
       }},
      {"8000 queues", [](DeviceInfo::Builder info) { info.initQueueSizes(8000); }},
      {"size 0",
       [](DeviceInfo::Builder info) {
         info.setQueueSizes({8, 0});
       }},
      {"size 1;", [](DeviceInfo::Builder info) { info.setQueueSizes({1}); }},
      {"size 255", [](DeviceInfo::Builder info) { info.setQueueSizes({255}); }},
      {"size 32769", [](DeviceInfo::Builder info) { info.setQueueSizes({32769}); }},
      {"size 65535", [](DeviceInfo::Builder info) { info.setQueueSizes({65535}); }},
      {"type 0", [](DeviceInfo::Builder info) { info.setDeviceType(0); }},
      {"type 64", [](DeviceInfo::Builder info) { info.setDeviceType(64); }},
      {"4097 bytes",
       [](DeviceInfo::Builder info) { info.setConfig(kj::heapArray<kj::byte>(4097)); }},
      {"mask of 15",
       [](DeviceInfo::Builder info) { info.setConfigWriteMask(kj::heapArray<kj::byte>(15)); }},
      {"mask of 17",
       [](DeviceInfo::Builder info) { info.setConfigWriteMask(kj::heapArray<kj::byte>(17)); }},
  };
  for (auto& spoilt : cases) {
    Script script;
    auto sound = script.describe;
    script.describe = [&](DeviceInfo::Builder info) {
      sound(info);
      spoilt.spoil(info);
    };
    Link link(kj::mv(script));
    std::string failure = failureOf([&]() { link.remote->describe().wait(link.io.waitScope); });
    EXPECT_EQ(failure.find("TRP-pci-002: device blk3 "), 0) << failure;
    EXPECT_NE(failure.find(spoilt.says), std::string::npos) << failure;
  }
}

TEST(RemoteDevice, BRK01AnEnormousDescriptionEndsTheConnectionNotTheBroker) {
  Script script;
  script.describe = [](DeviceInfo::Builder info) {
    info.setConfig(kj::heapArray<kj::byte>(1 << 20));
  };
  Link link(kj::mv(script));
  std::string failure = failureOf([&]() { link.remote->describe().wait(link.io.waitScope); });
  EXPECT_EQ(failure.find("TRP-pci-003: "), 0) << failure;
}

TEST(RemoteDevice, BRK01BytesThatAreNoMessageLoseTheDevice) {
  for (kj::byte fill : {0x00, 0x01, 0x7f, 0xff}) {
    kj::AsyncIoContext io = kj::setupAsyncIo();
    int pair[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    kj::AutoCloseFd peer(pair[1]);
    size_t losses = 0;
    RemoteDevice remote(io, 0, "blk0", kj::AutoCloseFd(pair[0]),
                        [&](uint16_t, kj::StringPtr, kj::StringPtr) { ++losses; });
    kj::byte junk[4096];
    memset(junk, fill, sizeof junk);
    KJ_SYSCALL(write(peer, junk, sizeof junk));
    KJ_SYSCALL(shutdown(peer, SHUT_WR));
    failureOf([&]() { remote.describe().wait(io.waitScope); });
    for (int i = 0; i < 4; ++i)
      io.waitScope.poll();
    EXPECT_EQ(losses, 1) << int(fill);
  }
}

TEST(RemoteDevice, ARefusedAttachIsToldWithTheDevicesWordsMadeHarmless) {
  Link link;
  link.remote->describe().wait(link.io.waitScope);
  link.script.refuses = true;
  std::string failure = failureOf([&]() { link.attach(); });
  EXPECT_EQ(failure.find("TRP-pci-003: device blk3 failed to start: "), 0) << failure;
  EXPECT_NE(failure.find("no memory?here"), std::string::npos) << failure;
}

TEST(RemoteDevice, ActivatesAndResetsInOrder) {
  Link link;
  link.start();
  link.remote->writeConfig(4, kj::arr<kj::byte>(1, 2));
  link.remote->activate(1, oneQueue());
  link.turn();
  link.remote->reset();
  link.turn();
  EXPECT_EQ(link.called(), "config 4+2;activate 1;reset;");
  EXPECT_EQ(link.client.resetsDone, 1);
  EXPECT_EQ(link.losses.size(), 0);
}

TEST(RemoteDevice, ADeviceThatCannotStartIsShownToItsDriver) {
  Link link;
  link.start();
  link.script.refuses = true;
  link.remote->activate(1, oneQueue());
  link.turn();
  EXPECT_EQ(link.client.needsResets, 1);
  EXPECT_EQ(link.losses.size(), 0);
}

TEST(RemoteDevice, BRK08AResetThatIsNotAnsweredEndsWithTheDeadlineAndTheDevice) {
  Script script;
  auto sound = script.describe;
  script.describe = [&](DeviceInfo::Builder info) {
    sound(info);
    info.setResetDeadlineMs(20);
  };
  script.answersReset = false;
  Link link(kj::mv(script));
  link.start();
  link.remote->activate(1, oneQueue());
  link.remote->reset();
  link.sleep(200);
  ASSERT_EQ(link.losses.size(), 1);
  EXPECT_EQ(link.losses[0], "3 blk3 did not let go of its queues within 20 ms of a reset");
  EXPECT_EQ(link.client.resetsDone, 1);
  // The driver goes on; what it asks for now is nothing, and resets complete.
  link.remote->activate(1, oneQueue());
  link.remote->reset();
  EXPECT_EQ(link.client.resetsDone, 2);
  link.turn();
  EXPECT_EQ(link.losses.size(), 1);
}

TEST(RemoteDevice, BRK08AResetIsNotDoneWhileItsActivationIsUnanswered) {
  Script script;
  auto sound = script.describe;
  script.describe = [&](DeviceInfo::Builder info) {
    sound(info);
    info.setResetDeadlineMs(0);  // taken as 1
  };
  script.answersActivate = false;
  Link link(kj::mv(script));
  link.start();
  link.remote->activate(1, oneQueue());
  link.remote->reset();
  link.sleep(100);
  EXPECT_EQ(link.losses.size(), 1);
  EXPECT_EQ(link.client.resetsDone, 1);
}

TEST(RemoteDevice, ADeviceThatHangsUpIsLostOnceAndLetsTheDriverGo) {
  Link link;
  link.start();
  link.remote->activate(1, oneQueue());
  link.turn();
  link.script.answersReset = false;
  link.remote->reset();
  link.turn();
  link.hangUp();
  link.turn();
  ASSERT_EQ(link.losses.size(), 1);
  EXPECT_EQ(link.losses[0], "3 blk3 closed its pipe");
  EXPECT_EQ(link.client.resetsDone, 1);
}

TEST(RemoteDevice, ADeviceThatHangsUpBeforeItDescribedItselfFailsTheStart) {
  Link link;
  link.hangUp();
  std::string failure = failureOf([&]() { link.remote->describe().wait(link.io.waitScope); });
  EXPECT_EQ(failure.find("TRP-pci-003: "), 0) << failure;
}

TEST(RemoteDevice, BRK02ADeviceThatAnswersNothingKeepsOneCallOfEachKindWaiting) {
  Script script;
  script.answersConfig = script.answersEvents = script.answersActivate = false;
  Link link(kj::mv(script));
  link.start();
  uint64_t before = link.remote->callCount();
  capnp::MallocMessageBuilder message;
  auto event = message.initRoot<HostEvent>();
  for (uint32_t i = 0; i < 100000; ++i) {
    kj::byte byte = i;
    link.remote->writeConfig(i % 4096, kj::arrayPtr(&byte, 1));
    event.initConsoleSize().setColumns(i);
    link.remote->hostEvent(event);
    if (i % 1000 == 0) link.turn();
  }
  link.turn();
  EXPECT_EQ(link.remote->callCount() - before, 2);

  // What waited is told in the end, merged.
  link.script.answersConfig = link.script.answersEvents = true;
  for (auto& fulfiller : link.device->unanswered)
    fulfiller->fulfill();
  link.turn();
  EXPECT_EQ(link.called(), "config 0+1;size 0;config 0+4096;size 34463;");
}

TEST(RemoteDevice, AnActivationFollowsTheConfigurationWrittenBeforeIt) {
  Script script;
  script.answersConfig = false;
  Link link(kj::mv(script));
  link.start();
  link.remote->writeConfig(0, kj::arr<kj::byte>(1));
  link.remote->writeConfig(8, kj::arr<kj::byte>(1));
  link.remote->activate(1, oneQueue());
  link.turn();
  EXPECT_EQ(link.called(), "config 0+1;");
  link.remote->reset();  // before it was ever sent
  EXPECT_EQ(link.client.resetsDone, 1);
  link.turn();
  EXPECT_EQ(link.called(), "config 0+1;");
}

TEST(RemoteDevice, TheDevicesChangesReachTheTransportAndOnesTooLongAreRefused) {
  Link link;
  link.start();
  auto change = [&](uint32_t offset, size_t size) {
    auto request = KJ_ASSERT_NONNULL(link.device->host).configChangedRequest();
    request.setOffset(offset);
    request.setData(kj::heapArray<kj::byte>(size));
    request.send().wait(link.io.waitScope);
  };
  change(0, 16);
  EXPECT_EQ(link.client.changes, 1);
  EXPECT_NE(failureOf([&]() { change(0, 17); }), "");
  EXPECT_NE(failureOf([&]() { change(0xffffffff, 1); }), "");
  EXPECT_EQ(link.client.changes, 1);
  KJ_ASSERT_NONNULL(link.device->host).needsResetRequest().send().wait(link.io.waitScope);
  EXPECT_EQ(link.client.needsResets, 1);
  EXPECT_EQ(link.losses.size(), 0);
}

// A device that writes Cap'n Proto messages by hand, without the manners of the library.
struct RudeDevice {
  RudeDevice() {
    int pair[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    socket = kj::AutoCloseFd(pair[1]);
    remote = kj::heap<RemoteDevice>(io, 0, "rude", kj::AutoCloseFd(pair[0]),
                                    [this](uint16_t, kj::StringPtr, kj::StringPtr) { ++losses; });
  }
  enum class Manner { NEVER_FINISHES, NEVER_READS };

  // Asks for the broker's bootstrap capability, of which there is none, until nothing more goes in.
  uint64_t ask(uint64_t most, Manner manner) {
    uint64_t sent = 0;
    for (int idle = 0; idle < 4 && sent < most && losses == 0;) {
      uint32_t question = sent;
      uint32_t words[] = {0, 5, 0, 0x00010001, 8, 0, 0, 0x00010001, question, 0, 0, 0,  // Bootstrap
                          0, 4, 0, 0x00010001, 4, 0, 0, 0x00000001, question, 0};       // Finish
      size_t size = manner == Manner::NEVER_FINISHES ? 48 : sizeof words;
      if (send(socket, words, size, MSG_NOSIGNAL) == size) {
        ++sent;
        idle = 0;
      } else {
        ++idle;
        io.waitScope.poll();
      }
      kj::byte answers[65536];
      if (manner == Manner::NEVER_FINISHES) read(socket, answers);
      if (sent % 16 == 0) io.waitScope.poll();
    }
    return sent;
  }
  void read(int fd, kj::ArrayPtr<kj::byte> buffer) {
    while (recv(fd, buffer.begin(), buffer.size(), 0) > 0)
      continue;
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd socket;
  size_t losses = 0;
  kj::Own<RemoteDevice> remote;
};

TEST(RemoteDevice, BRK02QuestionsThatAreNeverFinishedEndTheConnection) {
  RudeDevice device;
  EXPECT_LT(device.ask(1000000, RudeDevice::Manner::NEVER_FINISHES), 2000);
  EXPECT_EQ(device.losses, 1);
}

TEST(RemoteDevice, BRK02ADeviceThatReadsNoAnswersIsReadNoFurther) {
  RudeDevice device;
  EXPECT_LT(device.ask(1000000, RudeDevice::Manner::NEVER_READS),
            20000);  // what the socket's buffers hold
  EXPECT_EQ(device.losses, 0);
}

}  // namespace
}  // namespace troupe::broker
