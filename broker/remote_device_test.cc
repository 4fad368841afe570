#include "broker/remote_device.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <vector>

#include "broker/remote_device_bench.h"

namespace troupe::broker {
namespace {

kj::Array<QueueSettings> oneQueue() {
  auto queues = kj::heapArray<QueueSettings>(1);
  queues[0] = {0, 8, 0x1000, 0x2000, 0x3000};
  return queues;
}

ino_t inodeOf(int fd) {
  struct stat status;
  KJ_SYSCALL(fstat(fd, &status));
  return status.st_ino;
}

TEST(RemoteDevice, HandsOverTheMemoryThatWasGranted) {
  Link link;
  link.start();
  EXPECT_FALSE(link.device->readOnlyMemory);
  ASSERT_EQ(link.device->regions.size(), 2u);
  EXPECT_EQ(link.device->regions[1].guestAddress, 0x100000000u);
  EXPECT_EQ(link.device->regions[1].fileOffset, 0x100000u);
  EXPECT_EQ(link.device->regions[1].size, 0x200000u);
}

TEST(RemoteDevice, SaysThatMemoryIsReadOnly) {
  Link link;
  link.remote->describe().wait(link.io.waitScope);
  static const RamRegion page[] = {{0, 0, 4096}};
  link.attach(RamGrant{RamFile{link.ram, RamFile::READ_ONLY}, kj::heapArray<RamRegion>(page)});
  EXPECT_TRUE(link.device->readOnlyMemory);
}

TEST(RemoteDevice, HandsOverNoMemoryWhereNoneIsGranted) {
  Link link;
  link.remote->describe().wait(link.io.waitScope);
  link.attach(RamGrant{nullptr, nullptr});
  EXPECT_EQ(link.device->regions.size(), 0u);
  EXPECT_EQ(link.device->fds.size(), 0u);
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

TEST(RemoteDevice, BRK08ADeviceThatMakesAnEventFdBlockIsRefused) {
  for (int which : {0, 1, 2, 3}) {
    Link link;
    link.script.blocks = which;
    link.remote->describe().wait(link.io.waitScope);
    std::string failure = failureOf([&]() { link.attach(); });
    EXPECT_EQ(failure.find("TRP-pci-003: "), 0) << failure;
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

TEST(RemoteDevice, AnEventIsAnsweredWithWhatTheDeviceAnswers) {
  Script script;
  script.answersEvents = false;
  Link link(kj::mv(script));
  link.start();
  capnp::MallocMessageBuilder message;
  auto event = message.initRoot<HostEvent>();
  event.initConsoleSize();
  auto outcome = [](kj::Promise<void> promise) {
    return promise
        .then([] { return kj::str("done"); },
              [](kj::Exception&& e) { return kj::str(e.getDescription()); })
        .eagerlyEvaluate(nullptr);
  };
  auto first = outcome(link.remote->hostEvent(event));
  auto second = outcome(link.remote->hostEvent(event));
  auto third = outcome(link.remote->hostEvent(event));
  link.turn();
  EXPECT_EQ(link.device->unanswered.size(), 1u);
  EXPECT_NE(strstr(second.wait(link.io.waitScope).cStr(), "another event came"), nullptr);
  link.device->unanswered[0]->fulfill();
  EXPECT_STREQ(first.wait(link.io.waitScope).cStr(), "done");
  link.turn();
  ASSERT_EQ(link.device->unanswered.size(), 2u);
  link.device->unanswered[1]->reject(KJ_EXCEPTION(FAILED, "TRP-blk-011: not so"));
  EXPECT_NE(strstr(third.wait(link.io.waitScope).cStr(), "TRP-blk-011: not so"), nullptr);
  auto last = outcome(link.remote->hostEvent(event));
  link.turn();
  link.hangUp();
  EXPECT_STRNE(last.wait(link.io.waitScope).cStr(), "done") << "the device is lost";
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
