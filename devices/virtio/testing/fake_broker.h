#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/vector.h>

#include <initializer_list>

#include "devices/virtio/device_engine.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "protos/device.capnp.h"

namespace troupe::virtio::testing {

// A Handle that carries a duplicate of `fd`; -1 makes one without.
Handle::Client makeHandle(int fd);

// What a device told its broker.
struct FakeHost {
  uint32_t resetsAsked = 0;
  struct ConfigChange {
    uint32_t offset;
    kj::Array<kj::byte> data;
  };
  kj::Vector<ConfigChange> configChanges;

  // For devices that do not write the guest's memory: what they asked to be given back, call by
  // call, and the rings that the broker writes for them.
  kj::Vector<kj::Array<GuestRange>> givenBack;
  struct UsedRing {
    uint16_t queue;
    RingLayout layout;
    uint16_t next;
  };
  kj::Vector<UsedRing> usedRings;
};

// Plays broker and driver to one device at the other end of a socket pair: in this process
// (DeviceBench) or in its jail (ProcessBench).
//
// In the usual order: FakeRam, the bench, attach(), FakeDrivers, activate(), kick() and
// waitForInterrupt(), reset(). Every wait fails after ten seconds.
class FakeBroker {
 public:
  // `io` and `ram` outlive this; `stream` leads to a device with this many queues.
  FakeBroker(kj::AsyncIoContext& io, FakeRam& ram, kj::Own<kj::AsyncCapabilityStream> stream,
             size_t queueCount);
  ~FakeBroker() noexcept(false);
  KJ_DISALLOW_COPY(FakeBroker);

  FakeHost host;

  // The capability itself, for calls a well-behaved broker would not make.
  Device::Client device() { return client; }
  FakeRam& ram() { return fakeRam; }
  int kickFd(uint16_t queue) const { return events[queue].kick; }
  int callFd(uint16_t queue) const { return events[queue].call; }

  // Each throws what the device answers.
  capnp::Response<Device::DescribeResults> describe();
  void attach();
  // With an fd of RAM through which it can be read alone.
  void attachReadOnly();
  // The i-th driver has queue i; a null driver leaves its queue disabled.
  void activate(uint64_t features, std::initializer_list<FakeDriver*> drivers);
  // Its parameters, for a test to change.
  capnp::Request<Device::ActivateParams, Device::ActivateResults> activateRequest(
      uint64_t features, std::initializer_list<FakeDriver*> drivers);
  void reset();
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data);
  void consoleSize(uint16_t columns, uint16_t rows);
  void diskSize(uint64_t bytes);
  void balloonTarget(uint32_t pages);
  void balloonHint();
  capnp::Response<Device::ReportResults> report();

  // The parameters of attach() as the broker sends them, for a test to spoil.
  capnp::Request<Device::AttachParams, Device::AttachResults> attachRequest();

  // Notifies the queue, whether the device asked for that or not.
  void kick(uint16_t queue);
  // Returns once the device has interrupted for the queue since last asked.
  void waitForInterrupt(uint16_t queue);
  // Whether it has, looking without waiting.
  bool interrupted(uint16_t queue);

  // Turns the loop until `done()`, which is looked at again every millisecond at least.
  void waitUntil(kj::Function<bool()> done);
  // Kicks if asked to, and returns the next used element of `driver` when it is there.
  FakeDriver::Used waitForUsed(uint16_t queue, FakeDriver& driver);
  // Gives the device every chance to do what it should not.
  void settle();

  // Writes `bytes` where a message should be. False when the device has hung up.
  bool sendRaw(kj::ArrayPtr<const kj::byte> bytes);

  // Ends the connection as a dying broker does.
  void disconnect();

  template <typename T>
  T await(kj::Promise<T>&& promise) {
    return withDeadline(kj::mv(promise)).wait(loop.waitScope);
  }

 private:
  struct Events {
    kj::AutoCloseFd kick;
    kj::AutoCloseFd call;
  };
  template <typename T>
  kj::Promise<T> withDeadline(kj::Promise<T>&& promise) {
    return loop.provider->getTimer().timeoutAfter(60 * kj::SECONDS, kj::mv(promise));
  }

  kj::AsyncIoContext& loop;
  FakeRam& fakeRam;
  kj::Vector<Events> events;
  kj::Own<kj::AsyncCapabilityStream> stream;
  kj::Own<capnp::TwoPartyClient> rpc;
  Device::Client client;
};

}  // namespace troupe::virtio::testing
