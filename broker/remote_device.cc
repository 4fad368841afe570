#include "broker/remote_device.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>

#include "broker/device_answers.h"
#include "broker/device_connection.h"
#include "broker/refusal.h"
#include "broker/untold_config.h"
#include "protos/fd_handle.h"

namespace troupe::broker {
namespace {

constexpr uint32_t MOST_REPORTS = 16;  // as many clients as ask at once

// An eventfd's flags are the device's as much as ours. One that blocks would let it stop the main
// loop, or a vCPU, in a read or write of ours. Once it is ready its filter has no system call left
// that changes them.
void requireNonBlocking(kj::ArrayPtr<const QueueFds> queues) {
  for (auto& queue : queues) {
    for (int fd : {queue.kick, queue.call}) {
      int flags;
      KJ_SYSCALL(flags = fcntl(fd, F_GETFL));
      KJ_REQUIRE(flags & O_NONBLOCK, "it made an eventfd of a queue blocking");
    }
  }
}

// The broker as one device sees it.
class DeviceHostActor final: public DeviceHost::Server {
 public:
  // `deputy` may be appointed later; the two live as long as the device is worked with.
  DeviceHostActor(VirtioDeviceClient& client, const kj::Maybe<RamDeputy&>& deputy)
      : client(client), deputy(deputy) {}

  kj::Promise<void> configChanged(ConfigChangedContext context) override {
    auto params = context.getParams();
    bool fits = client.configChanged(params.getOffset(), params.getData());
    KJ_REQUIRE(fits, "the bytes pass the end of the configuration space", params.getOffset());
    return kj::READY_NOW;
  }

  kj::Promise<void> needsReset(NeedsResetContext) override {
    client.needsReset();
    return kj::READY_NOW;
  }

  kj::Promise<void> returnChains(ReturnChainsContext context) override {
    auto params = context.getParams();
    auto& ram = KJ_REQUIRE_NONNULL(deputy, "the device returns its chains itself");
    uint64_t bytes = ram.returnChains(params.getQueue(), params.getChains(), params.getGiveBack());
    context.getResults().setGivenBack(bytes);
    return kj::READY_NOW;
  }

 private:
  VirtioDeviceClient& client;
  const kj::Maybe<RamDeputy&>& deputy;
};

}  // namespace

// Everything of a RemoteDevice; its callbacks hold this address.
//
// At most one call of each kind is under way. What comes meanwhile is merged: configuration bytes
// by offset, events to the last one. Of activate and reset there cannot be more, since the
// transport lets no driver past a reset before resetDone(), and that comes when both have been
// answered.
class RemoteDevice::Session final: private kj::TaskSet::ErrorHandler {
 public:
  Session(kj::Timer& timer, uint16_t index, kj::StringPtr name,
          kj::Own<kj::AsyncCapabilityStream> stream, DeviceLost lost)
      : timer(timer), index(index), name(kj::heapString(name)), lost(kj::mv(lost)), tasks(*this) {
    auto opened = kj::heap<DeviceConnection>(kj::mv(stream));
    device = opened->bootstrap();
    tasks.add(opened->onDisconnect().then([this]() { lose("closed its pipe"); }));
    connection = kj::mv(opened);
  }

  kj::Promise<DeviceDescription> describe() {
    ++calls;
    return call().describeRequest().send().then(
        [this](capnp::Response<Device::DescribeResults> response) {
          resetDeadlineMs = resetDeadlineOf(response.getInfo());
          return checkedDescription(name, response.getInfo());
        },
        [this](kj::Exception&& error) -> DeviceDescription { failStart(error); });
  }

  kj::Promise<void> attach(const RamGrant& ram, kj::ArrayPtr<const QueueFds> queues,
                           VirtioDeviceClient& newClient, kj::Maybe<RamDeputy&> newDeputy,
                           uint8_t place) {
    client = newClient;
    deputy = newDeputy;
    auto request = call().attachRequest();
    auto memory = request.initMemory();
    KJ_IF_MAYBE (file, ram.file) {
      memory.setFile(kj::heap<LentFdHandle>(file->fd));
      memory.setReadOnly(file->access == RamFile::READ_ONLY);
    }
    auto regions = memory.initRegions(ram.pieces.size());
    for (auto i : kj::indices(ram.pieces)) {
      regions[i].setGuestAddress(ram.pieces[i].guestAddress);
      regions[i].setFileOffset(ram.pieces[i].fileOffset);
      regions[i].setSize(ram.pieces[i].size);
    }
    auto events = request.initQueues(queues.size());
    for (auto i : kj::indices(queues)) {
      events[i].setKick(kj::heap<LentFdHandle>(queues[i].kick));
      events[i].setCall(kj::heap<LentFdHandle>(queues[i].call));
    }
    request.setHost(kj::heap<DeviceHostActor>(newClient, deputy));
    request.setPlace(place);
    ++calls;
    // The device has the fds of this call open, beside the copies it keeps, until it hears that we
    // dropped its answer. The answer to one more call comes after that, so whoever looks at the
    // device's fds from then on sees those of its profile and no others.
    return request.send()
        .ignoreResult()
        .then([this]() {
          ++calls;
          return call().describeRequest().send().ignoreResult();
        })
        .then([queues]() { requireNonBlocking(queues); })
        .catch_([this](kj::Exception&& error) { failStart(error); });
  }

  void appoint(RamDeputy& newDeputy) { deputy = newDeputy; }

  kj::Promise<void> handOver() {
    if (isLost) return KJ_EXCEPTION(DISCONNECTED, "the device is lost");
    ++calls;
    auto late = afterResetDeadline().then([this]() {
      loseForDeadline("being asked to hand over");
      kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the device is lost"));
    });
    return call()
        .handOverRequest()
        .send()
        .ignoreResult()
        .catch_([this](kj::Exception&& error) {
          loseFor("refused to hand over", error);
          kj::throwFatalException(kj::mv(error));
        })
        .exclusiveJoin(kj::mv(late));
  }

  kj::Promise<kj::Array<kj::byte>> takeOver() {
    if (isLost) return KJ_EXCEPTION(DISCONNECTED, "the device is lost");
    ++calls;
    return call().takeOverRequest().send().then(
        [](auto&& response) { return kj::heapArray<kj::byte>(response.getConfig()); },
        [this](kj::Exception&& error) -> kj::Array<kj::byte> {
          loseFor("did not take over", error);
          kj::throwFatalException(kj::mv(error));
        });
  }

  kj::Promise<void> hostEvent(HostEvent::Reader event) {
    if (isLost) return KJ_EXCEPTION(DISCONNECTED, "the device is lost");
    auto paf = kj::newPromiseAndFulfiller<void>();
    auto copy = kj::heap<capnp::MallocMessageBuilder>();
    copy->setRoot(event);
    KJ_IF_MAYBE (earlier, nextEvent) {
      earlier->told->reject(KJ_EXCEPTION(OVERLOADED, "another event came before it was told"));
    }
    nextEvent = WaitingEvent{kj::mv(copy), kj::mv(paf.fulfiller)};
    pump();
    return kj::mv(paf.promise);
  }

  kj::Promise<kj::Own<capnp::MallocMessageBuilder>> report() {
    if (isLost) return KJ_EXCEPTION(DISCONNECTED, "the device is lost");
    KJ_REQUIRE(reports < MOST_REPORTS, "too many reports of a device are under way");
    ++reports;
    ++calls;
    return call()
        .reportRequest()
        .send()
        .then([](capnp::Response<Device::ReportResults> response) {
          auto copy = kj::heap<capnp::MallocMessageBuilder>();
          copyReport(response.getReport(), copy->initRoot<DeviceReport>());
          return copy;
        })
        .attach(kj::defer([this]() { --reports; }));
  }

  void activate(uint64_t features, kj::Array<QueueSettings> queues, Activation which) {
    nextActivation = WaitingActivation{features, kj::mv(queues), which};
    pump();
  }

  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
    untoldConfig.add(offset, data);
    pump();
  }

  void reset() {
    if (isLost || nextActivation != nullptr) {
      nextActivation = nullptr;
      return tellResetDone();  // it is not active, or not any more
    }
    if (resetting) return;
    resetting = true;
    resetAnswered = false;
    ++calls;
    tasks.add(call().resetRequest().send().then(
        [this](auto&&) {
          resetAnswered = true;
          finishReset();
        },
        [this](kj::Exception&& error) { loseFor("refused to reset", error); }));
    startDeadline();
  }

  uint64_t callCount() const { return calls; }

 private:
  struct WaitingEvent {
    kj::Own<capnp::MallocMessageBuilder> message;
    kj::Own<kj::PromiseFulfiller<void>> told;
  };
  struct WaitingActivation {
    uint64_t features;
    kj::Array<QueueSettings> queues;
    Activation which;
  };

  Device::Client& call() { return KJ_ASSERT_NONNULL(device); }

  [[noreturn]] void failStart(const kj::Exception& error) {
    refuse("TRP-pci-003: device ", name, " failed to start: ", quoted(error.getDescription()));
  }

  // Sends what waits and may be sent. A driver's configuration comes before its activation.
  void pump() {
    if (isLost || client == nullptr) return;
    if (!writing && !untoldConfig.empty()) sendConfig();
    if (!activating && untoldConfig.empty() && nextActivation != nullptr) sendActivation();
    if (!telling && nextEvent != nullptr) sendEvent();
  }

  void sendConfig() {
    auto request = call().writeConfigRequest();
    uint32_t offset;
    auto bytes = untoldConfig.take(offset);
    request.setOffset(offset);
    request.setData(bytes);
    // A device may dislike what a driver writes; that is between the two.
    send(writing, request.send().ignoreResult(), [](kj::Exception&&) {});
  }

  void sendActivation() {
    auto& activation = KJ_ASSERT_NONNULL(nextActivation);
    auto request = call().activateRequest();
    request.setFeatures(activation.features);
    request.setNumber(activation.which.number);
    request.setResumed(activation.which.resumed);
    request.setOwnFault(activation.which.ownFault);
    auto queues = request.initQueues(activation.queues.size());
    for (auto i : kj::indices(activation.queues)) {
      auto& queue = activation.queues[i];
      queues[i].setIndex(queue.index);
      queues[i].setSize(queue.size);
      queues[i].setDescriptorTable(queue.descriptorTable);
      queues[i].setAvailableRing(queue.availableRing);
      queues[i].setUsedRing(queue.usedRing);
    }
    KJ_IF_MAYBE (ram, deputy) {
      ram->activate(activation.which.number, activation.queues);
      for (auto queue : queues)
        queue.setReturned(ram->returned(queue.getIndex()));
    }
    nextActivation = nullptr;
    // A device that cannot start tells its driver so, as for any other failure (§2.1.2).
    send(activating, request.send().ignoreResult(), [this](kj::Exception&& error) {
      bool isGone = isLost || error.getType() == kj::Exception::Type::DISCONNECTED;
      if (!isGone) KJ_ASSERT_NONNULL(client).needsReset();
    });
  }

  void sendEvent() {
    auto event = kj::mv(KJ_ASSERT_NONNULL(nextEvent));
    nextEvent = nullptr;
    auto request = call().hostEventRequest();
    request.setEvent(event.message->getRoot<HostEvent>().asReader());
    auto& told = *event.told;
    send(telling, request.send().ignoreResult().then([&told]() { told.fulfill(); }),
         [told = kj::mv(event.told)](kj::Exception&& error) mutable {
           told->reject(kj::mv(error));
         });
  }

  // `underWay` is true until the call has been answered, and then what waited for it goes on.
  template <typename Refused>
  void send(bool& underWay, kj::Promise<void> answer, Refused refused) {
    underWay = true;
    ++calls;
    tasks.add(answer.catch_(kj::mv(refused)).then([this, &underWay]() {
      underWay = false;
      finishReset();
      pump();
    }));
  }

  void finishReset() {
    // Also the activation before it, or a device that never answers one could collect them.
    if (!resetting || !resetAnswered || activating) return;
    resetting = false;
    deadline = nullptr;
    dismissDeputy();
    tellResetDone();
  }

  // In halves: when this process has not run for so long that both it and an answer are due, the
  // answer is read before the second half is over.
  kj::Promise<void> afterResetDeadline() {
    auto half = resetDeadlineMs * kj::MILLISECONDS / 2;
    return timer.afterDelay(half).then([this, half]() { return timer.afterDelay(half); });
  }

  void startDeadline() {
    deadline = afterResetDeadline()
                   .then([this]() { loseForDeadline("a reset"); })
                   .eagerlyEvaluate(nullptr);
  }

  void loseForDeadline(kj::StringPtr event) {
    lose(kj::str("did not let go of its queues within ", resetDeadlineMs, " ms of ", event));
  }

  void loseFor(kj::StringPtr what, const kj::Exception& error) {
    if (error.getType() == kj::Exception::Type::DISCONNECTED) return lose("closed its pipe");
    lose(kj::str(what, ": ", quoted(error.getDescription())));
  }

  void lose(kj::StringPtr why) {
    if (isLost) return;
    isLost = true;
    KJ_IF_MAYBE (ram, deputy) {
      ram->suspend();
    }
    nextActivation = nullptr;
    nextEvent = nullptr;
    // Later: this may be running inside the connection.
    tasks.add(kj::evalLater([this]() { connection = nullptr; }));
    lost(index, name, why);
    if (resetting) {
      resetting = false;
      tellResetDone();
    }
  }

  // Before the driver may use its rings for something else.
  void dismissDeputy() {
    KJ_IF_MAYBE (ram, deputy) {
      ram->deactivate();
    }
  }

  void tellResetDone() {
    KJ_IF_MAYBE (c, client) {
      c->resetDone();
    }
  }

  // A continuation above threw: something of ours, but the device cannot be trusted to be well.
  void taskFailed(kj::Exception&& error) override { loseFor("broke its connection", error); }

  kj::Timer& timer;
  const uint16_t index;
  const kj::String name;
  DeviceLost lost;
  kj::Maybe<VirtioDeviceClient&> client;
  kj::Maybe<RamDeputy&> deputy;

  kj::Maybe<WaitingActivation> nextActivation;
  kj::Maybe<WaitingEvent> nextEvent;
  UntoldConfig untoldConfig;
  uint32_t resetDeadlineMs = 500;
  uint64_t calls = 0;
  uint32_t reports = 0;  // under way
  bool writing = false;
  bool activating = false;
  bool telling = false;
  bool resetting = false;
  bool resetAnswered = false;
  bool isLost = false;

  kj::Maybe<kj::Own<DeviceConnection>> connection;
  kj::Maybe<Device::Client> device;
  kj::Maybe<kj::Promise<void>> deadline;
  kj::TaskSet tasks;
};

RemoteDevice::RemoteDevice(kj::AsyncIoContext& io, uint16_t index, kj::StringPtr name,
                           kj::AutoCloseFd pipe, DeviceLost lost)
    // Once the broker serves, its filter has no call left that would make it so.
    : RemoteDevice(io.provider->getTimer(), index, name,
                   io.lowLevelProvider->wrapUnixSocketFd(
                       kj::mv(pipe), kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK |
                                         kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC),
                   kj::mv(lost)) {}

RemoteDevice::RemoteDevice(kj::Timer& timer, uint16_t index, kj::StringPtr name,
                           kj::Own<kj::AsyncCapabilityStream> pipe, DeviceLost lost)
    : session(kj::heap<Session>(timer, index, name, kj::mv(pipe), kj::mv(lost))) {}

RemoteDevice::~RemoteDevice() noexcept(false) = default;

kj::Promise<DeviceDescription> RemoteDevice::describe() {
  return session->describe();
}

kj::Promise<void> RemoteDevice::attach(const RamGrant& ram, kj::ArrayPtr<const QueueFds> queues,
                                       VirtioDeviceClient& client, kj::Maybe<RamDeputy&> deputy,
                                       uint8_t place) {
  return session->attach(ram, queues, client, deputy, place);
}

void RemoteDevice::appoint(RamDeputy& deputy) {
  session->appoint(deputy);
}

kj::Promise<void> RemoteDevice::handOver() {
  return session->handOver();
}

kj::Promise<kj::Array<kj::byte>> RemoteDevice::takeOver() {
  return session->takeOver();
}

kj::Promise<void> RemoteDevice::hostEvent(HostEvent::Reader event) {
  return session->hostEvent(event);
}

kj::Promise<kj::Own<capnp::MallocMessageBuilder>> RemoteDevice::report() {
  return session->report();
}

void RemoteDevice::activate(uint64_t features, kj::Array<QueueSettings> queues, Activation which) {
  session->activate(features, kj::mv(queues), which);
}

void RemoteDevice::reset() {
  session->reset();
}

void RemoteDevice::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  session->writeConfig(offset, data);
}

uint64_t RemoteDevice::callCount() const {
  return session->callCount();
}

}  // namespace troupe::broker
