// Fuzzes the broker against a device process that somebody took over: typed answers and calls with
// fields out of range, in any order, among bytes that are no message.
#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/timer.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cstring>

#include "broker/pci_fakes.h"
#include "broker/remote_device.h"
#include "broker/virtio_transport.h"
#include "tests/fuzz/fd_pipe.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::broker {
namespace {

using fuzz::finding;
using fuzz::Op;

constexpr uint64_t MOST_CALLS = 3 + 64 * 2;  // one of each kind for each operation, at most

// What the device says, as the operations choose.
struct Part {
  bool answers = true;
  bool refuses = false;
  Op description{};
};

void fill(DeviceInfo::Builder info, const Op& op) {
  // Mostly right, and wrong in what the bits of `a` choose.
  auto wrong = [&](int bit) { return op.a >> bit & 1; };
  info.setDeviceType(wrong(0) ? op.b : 2);
  info.setFeatures(op.d);
  auto sizes = info.initQueueSizes(wrong(1) ? op.b % 64 : 2);
  for (uint16_t size = 0; size < sizes.size(); ++size)
    sizes.set(size, wrong(2) ? op.c >> size % 16 : 64);
  uint32_t configBytes = wrong(3) ? op.c % 5000 : 16;
  info.setConfig(kj::heapArray<kj::byte>(configBytes));
  info.setConfigWriteMask(kj::heapArray<kj::byte>(wrong(4) ? op.b % 5000 : configBytes));
  if (wrong(5)) info.setResetDeadlineMs(op.c);
}

class HostileDevice final: public Device::Server {
 public:
  explicit HostileDevice(Part& part) : part(part) {}

  kj::Promise<void> describe(DescribeContext context) override {
    fill(context.getResults().initInfo(), part.description);
    return answer();
  }
  kj::Promise<void> attach(AttachContext context) override {
    host = context.getParams().getHost();
    return answer();
  }
  kj::Promise<void> activate(ActivateContext) override { return answer(); }
  kj::Promise<void> reset(ResetContext) override { return answer(); }
  kj::Promise<void> writeConfig(WriteConfigContext) override { return answer(); }
  kj::Promise<void> hostEvent(HostEventContext) override { return answer(); }

  void answerAll() {
    for (auto& one : unanswered)
      one->fulfill();
    unanswered.clear();
  }

  kj::Maybe<DeviceHost::Client> host;

 private:
  kj::Promise<void> answer() {
    KJ_REQUIRE(!part.refuses, "will not");
    if (part.answers) return kj::READY_NOW;
    auto pair = kj::newPromiseAndFulfiller<void>();
    unanswered.add(kj::mv(pair.fulfiller));
    return kj::mv(pair.promise);
  }

  Part& part;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> unanswered;
};

// What the broker does with what it hears, as VirtioPciFunction does it.
class Client final: public VirtioDeviceClient {
 public:
  explicit Client(const DeviceDescription& description) : transport(description, 3) {}
  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override {
    return transport.configChanged(offset, data);
  }
  void needsReset() override { (void)transport.needsReset(); }
  void resetDone() override { ++resetsDone; }

  VirtioTransport transport;
  uint64_t resetsDone = 0;
};

// Rules of protos/device.capnp that everything behind describe() believes.
void checkDescription(const DeviceDescription& description) {
  bool good = description.queueSizes.size() <= MAX_QUEUES && description.config.size() <= 4096 &&
              description.config.size() == description.configWriteMask.size();
  for (uint16_t size : description.queueSizes)
    good = good && size >= 2 && size <= 32768 && (size & (size - 1)) == 0;
  if (!good) finding("a description that breaks the rules was accepted");
}

class Conversation {
 public:
  Conversation() {
    auto pipe = fuzz::newFdPipe();
    peer = kj::mv(pipe.ends[1]);
    auto owned = kj::heap<HostileDevice>(part);
    device = owned.get();
    network = kj::heap<capnp::TwoPartyVatNetwork>(*peer, 64, capnp::rpc::twoparty::Side::SERVER);
    rpc = kj::heap<capnp::RpcSystem<capnp::rpc::twoparty::VatId>>(
        capnp::makeRpcServer(*network, Device::Client(kj::mv(owned))));
    remote = kj::heap<RemoteDevice>(timer, 3, "blk3", kj::mv(pipe.ends[0]),
                                    [this](uint16_t, kj::StringPtr, kj::StringPtr) { ++losses; });
  }
  ~Conversation() noexcept(false) {
    told.clear();
    device = nullptr;
    rpc = nullptr;
    network = nullptr;
    peer = nullptr;
    turn();
    if (losses > 1) finding("a device is lost twice");
    remote = nullptr;
    turn();
  }

  // As troupe starts every device. False when that fails, as it must for a device that lies.
  bool start(const Op& op) {
    part.description = op;
    bool described = false;
    wait(remote->describe().then([&](DeviceDescription description) {
      described = true;
      checkDescription(description);
      client = kj::heap<Client>(description);
      queueCount = description.queueSizes.size();
    }));
    if (!described) return false;
    static const int eventFd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    static const int ram = memfd_create("ram", MFD_CLOEXEC);
    auto queues = kj::heapArray<QueueFds>(queueCount);
    for (auto& queue : queues)
      queue = {eventFd, eventFd};
    bool attached = false;
    RamGrant grant{RamFile{ram, RamFile::WRITABLE},
                   kj::heapArray<RamRegion>({{0, 0, 0x100000}, {0x100000000, 0x100000, 0x200000}})};
    wait(remote->attach(grant, queues, *client).then([&]() { attached = true; }));
    return attached;
  }

  void perform(const Op& op) {
    switch (op.kind % 12) {
      case 0:
        part.answers = op.a & 1;
        part.refuses = op.a & 2;
        break;
      case 1:
        device->answerAll();
        break;
      case 2:
      case 3:
        changeConfig(op);
        break;
      case 4:
        KJ_IF_MAYBE (host, device->host) {
          tell(host->needsResetRequest().send().ignoreResult());
        }
        break;
      case 5:
        KJ_IF_MAYBE (host, device->host) {
          capnp::Capability::Client any = *host;
          auto request = any.typelessRequest(capnp::typeId<DeviceHost>() ^ (op.a & 1), op.b,
                                             capnp::MessageSize{64, 1});
          request.initAsAnyStruct(op.c % 8, op.c / 8 % 4);
          tell(request.send().ignoreResult());
        }
        break;
      case 6:
        // A device is started by its driver once; the transport lets no second one through.
        if (!active && !resetting()) {
          active = true;
          remote->activate(op.d, kj::heapArray<QueueSettings>({{0, op.b, op.d, op.d, op.d}}));
        }
        break;
      case 7:
        if (active && !resetting()) {
          active = false;
          ++resets;
          remote->reset();
        }
        break;
      case 8: {
        kj::byte data[8];
        memcpy(data, &op.d, sizeof(data));
        remote->writeConfig(op.b % 4090, kj::arrayPtr(data, op.a % 8));
        break;
      }
      case 9: {
        capnp::MallocMessageBuilder message;
        auto size = message.initRoot<HostEvent>().initConsoleSize();
        size.setColumns(op.b);
        remote->hostEvent(message.getRoot<HostEvent>().asReader());
        break;
      }
      case 10:
        raw(op);
        break;
      default:  // time passes, deadlines among it
        timer.advanceTo(timer.now() + op.c % 20000 * kj::MILLISECONDS);
        break;
    }
    turn();
    if (remote->callCount() > MOST_CALLS) finding("calls to a device without bound");
    if (losses > 1) finding("a device is lost twice");
    if (client->resetsDone > resets) finding("a reset is done that nobody asked for");
    // Whatever the device does: who is lost holds no driver up.
    if (losses > 0 && client->resetsDone != resets) finding("a lost device holds its driver up");
  }

 private:
  bool resetting() const { return client->resetsDone != resets; }

  void changeConfig(const Op& op) {
    KJ_IF_MAYBE (host, device->host) {
      auto request = host->configChangedRequest();
      request.setOffset(op.a & 1 ? op.c : op.b % 20);
      request.setData(kj::heapArray<kj::byte>(op.a & 2 ? op.d % 70000 : op.d % 20));
      tell(request.send().ignoreResult());
    }
  }

  // Bytes in the place of a message: noise, a frame around noise, a frame that lies.
  void raw(const Op& op) {
    kj::byte bytes[32];
    memcpy(bytes, &op, sizeof(op));
    memcpy(bytes + 16, &op, sizeof(op));
    if (op.a & 1) {
      uint32_t header[2] = {op.a & 2 ? op.c : 0, op.a & 4 ? op.b : 3u};
      memcpy(bytes, header, sizeof(header));
    }
    auto said = kj::heapArray<kj::byte>(bytes, op.b % sizeof(bytes) + 1);
    auto written = kj::evalNow([&] { return peer->write(said.begin(), said.size()); });
    tell(written.attach(kj::mv(said)));
  }

  void tell(kj::Promise<void> call) {
    told.add(call.catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr));
  }

  // Until it is settled, or as far as it gets when the device does not answer.
  void wait(kj::Promise<void> promise) {
    auto kept = promise.catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
    for (int i = 0; i < 8 && !kept.poll(scope); ++i)
      turn();
  }
  void turn() {
    for (int i = 0; i < 2; ++i)
      scope.poll();
  }

  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  Part part;
  kj::Own<kj::AsyncCapabilityStream> peer;
  HostileDevice* device;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Own<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc;
  kj::Own<Client> client;
  kj::Own<RemoteDevice> remote;
  kj::Vector<kj::Promise<void>> told;
  size_t queueCount = 0;
  uint64_t losses = 0;
  uint64_t resets = 0;
  bool active = false;
};

void run(kj::ArrayPtr<const kj::byte> input) {
  auto ops = fuzz::decode(input);
  if (ops.empty()) return;
  Conversation conversation;
  if (!conversation.start(ops[0])) return;
  // Each one is a message or two through a socket.
  for (size_t i = 1; i < kj::min(ops.size(), size_t(16)); ++i)
    conversation.perform(ops[i]);
}

// A device that breaks its connection is an error to log, thousands of times a second here.
class Quiet final: public kj::ExceptionCallback {
  void logMessage(kj::LogSeverity, const char*, int, int, kj::String&&) override {}
  StackTraceMode stackTraceMode() override { return StackTraceMode::NONE; }
};

}  // namespace
}  // namespace troupe::broker

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::broker::Quiet quiet;
  try {
    troupe::broker::run(kj::arrayPtr(data, size));
  } catch (const kj::Exception& exception) {
    troupe::fuzz::finding(kj::str("an exception left the broker's side: ", exception));
  }
  return 0;
}
