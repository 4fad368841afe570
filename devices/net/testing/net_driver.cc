#include "devices/net/testing/net_driver.h"

#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace troupe::net::testing {

using virtio::testing::Buffer;
using virtio::testing::FakeBroker;
using virtio::testing::FakeDriver;
using virtio::testing::writable;

Bytes frame(const MacAddress& destination, const MacAddress& source, size_t bytes, kj::byte fill) {
  auto result = kj::heapArray<kj::byte>(bytes);
  memset(result.begin(), fill, bytes);
  memcpy(result.begin(), destination.bytes, 6);
  memcpy(result.begin() + 6, source.bytes, 6);
  result[12] = 0x88;  // a local experiment's (IEEE 802)
  result[13] = 0xb5;
  return result;
}

Bytes concat(kj::ArrayPtr<const kj::byte> first, kj::ArrayPtr<const kj::byte> second) {
  auto result = kj::heapArray<kj::byte>(first.size() + second.size());
  memcpy(result.begin(), first.begin(), first.size());
  memcpy(result.begin() + first.size(), second.begin(), second.size());
  return result;
}

Bytes withHeader(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame) {
  return concat(kj::arrayPtr(&header, 1).asBytes(), frame);
}

bool Peer::send(kj::ArrayPtr<const kj::byte> bytes) {
  ssize_t sent = ::send(socket, bytes.begin(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EPIPE)) return false;
  KJ_REQUIRE(sent == ssize_t(bytes.size()), "the device's socket takes less", sent, errno);
  return true;
}

kj::Maybe<Bytes> Peer::receive() {
  auto buffer = kj::heapArray<kj::byte>(1 << 20);
  ssize_t size = recv(socket, buffer.begin(), buffer.size(), MSG_DONTWAIT);
  if (size <= 0) return nullptr;
  return kj::heapArray(buffer.slice(0, size).asConst());
}

namespace {

struct Sockets {
  explicit Sockets(int type) { KJ_SYSCALL(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds)); }
  int fds[2];
};

}  // namespace

Cable::Cable(int type) : peer(kj::AutoCloseFd()) {
  Sockets sockets(type | SOCK_NONBLOCK);
  device = kj::AutoCloseFd(sockets.fds[0]);
  peer = Peer(kj::AutoCloseFd(sockets.fds[1]));
}

NetDriver::NetDriver(uint16_t pairs, uint16_t ringSize) : pairs(pairs), ringSize(ringSize) {
  makeRings();
}

void NetDriver::makeRings() {
  drivers.clear();
  offered.clear();
  for (uint16_t i = 0; i < 2 * pairs; i++)
    drivers.add(kj::heap<FakeDriver>(ram, ringSize));
  drivers.add(kj::heap<FakeDriver>(ram, 64));
  for (uint16_t i = 0; i < pairs; i++)
    offered.add();
}

void NetDriver::activate(FakeBroker& broker, uint64_t features) {
  activateSome(broker, features, allQueues(features));
}

// Without MQ there is one pair, and the control queue is the third (§5.1.2).
kj::Array<uint16_t> NetDriver::allQueues(uint64_t features) {
  controlQueue = 2 * (features & virtio::NET_F_MQ ? pairs : 1);
  auto queues = kj::heapArray<uint16_t>(controlQueue + 1);
  for (uint16_t i = 0; i < queues.size(); i++)
    queues[i] = i;
  return queues;
}

uint8_t NetDriver::activateWithCommand(FakeBroker& broker, uint64_t features, uint8_t commandClass,
                                       uint8_t number, kj::ArrayPtr<const kj::byte> data) {
  makeRings();
  auto queues = allQueues(features);
  uint64_t answer = addCommand(commandClass, number, data);
  broker.await(activateRequest(broker, features, queues).send().ignoreResult());
  return waitForAnswer(broker, answer);
}

void NetDriver::activateAs(FakeBroker& broker, uint64_t features, uint64_t number, bool resumed) {
  if (!resumed) makeRings();
  auto request = activateRequest(broker, features, allQueues(features));
  request.setNumber(number);
  request.setResumed(resumed);
  broker.await(request.send().ignoreResult());
}

void NetDriver::activateSome(FakeBroker& broker, uint64_t features,
                             kj::ArrayPtr<const uint16_t> queues) {
  makeRings();
  broker.await(activateRequest(broker, features, queues).send().ignoreResult());
}

NetDriver::ActivateRequest NetDriver::activateRequest(FakeBroker& broker, uint64_t features,
                                                      kj::ArrayPtr<const uint16_t> queues) {
  auto request = broker.device().activateRequest();
  request.setFeatures(features);
  auto list = request.initQueues(queues.size());
  for (size_t i = 0; i < queues.size(); i++) {
    auto layout = (queues[i] == controlQueue ? control() : *drivers[queues[i]]).layout();
    list[i].setIndex(queues[i]);
    list[i].setSize(layout.size);
    list[i].setDescriptorTable(layout.descriptorTable);
    list[i].setAvailableRing(layout.availableRing);
    list[i].setUsedRing(layout.usedRing);
  }
  return request;
}

void NetDriver::send(FakeBroker& broker, const virtio::NetHeader& header,
                     kj::ArrayPtr<const kj::byte> frame, uint16_t pair) {
  auto& driver = transmitter(pair);
  driver.add({driver.readableBuffer(withHeader(header, frame))});
  if (driver.shouldKick()) broker.kick(2 * pair + 1);
}

void NetDriver::waitForSent(FakeBroker& broker, uint32_t count, uint16_t pair) {
  for (uint32_t i = 0; i < count; i++)
    KJ_ASSERT(broker.waitForUsed(2 * pair + 1, transmitter(pair)).written == 0);
}

void NetDriver::offer(FakeBroker& broker, uint32_t count, uint32_t bytes, uint16_t pair) {
  auto& driver = receiver(pair);
  for (uint32_t i = 0; i < count; i++) {
    Buffer buffer = driver.writableBuffer(bytes);
    uint16_t head = driver.add({buffer});
    offered[pair].add(Offered{head, buffer.address, bytes});
  }
  if (driver.shouldKick()) broker.kick(2 * pair);
}

kj::Maybe<NetDriver::Arrival> NetDriver::takeArrival(uint16_t pair) {
  auto& driver = receiver(pair);
  Arrival arrival{};
  kj::Vector<kj::byte> bytes;
  uint16_t left = 1;
  while (left > 0) {
    KJ_IF_MAYBE (used, driver.takeUsed()) {
      auto& list = offered[pair];
      size_t at = 0;
      while (at < list.size() && list[at].head != used->head)
        at++;
      KJ_ASSERT(at < list.size() && used->written <= list[at].bytes);
      bytes.addAll(ram.bytes(list[at].address, used->written));
      list[at] = list.back();
      list.removeLast();
      if (arrival.written.size() == 0) {
        KJ_ASSERT(bytes.size() >= sizeof(arrival.header));
        memcpy(&arrival.header, bytes.begin(), sizeof(arrival.header));
        left = arrival.header.bufferCount;
      }
      arrival.written.add(used->written);
      left--;
    } else {
      KJ_ASSERT(arrival.written.size() == 0, "part of a frame was shown");
      return nullptr;
    }
  }
  arrival.frame =
      kj::heapArray(bytes.asPtr().slice(sizeof(arrival.header), bytes.size()).asConst());
  return kj::mv(arrival);
}

NetDriver::Arrival NetDriver::waitForArrival(FakeBroker& broker, uint16_t pair) {
  Arrival arrival{};
  broker.waitUntil([&] {
    KJ_IF_MAYBE (got, takeArrival(pair)) {
      arrival = kj::mv(*got);
      return true;
    }
    return false;
  });
  return arrival;
}

uint8_t NetDriver::command(FakeBroker& broker, uint8_t commandClass, uint8_t number,
                           kj::ArrayPtr<const kj::byte> data) {
  return waitForAnswer(broker, addCommand(commandClass, number, data));
}

// Where its answer is going to be.
uint64_t NetDriver::addCommand(uint8_t commandClass, uint8_t number,
                               kj::ArrayPtr<const kj::byte> data) {
  auto& driver = control();
  virtio::NetControlHeader header{commandClass, number};
  uint64_t answer = ram.allocate(1);
  kj::Vector<Buffer> buffers;
  buffers.add(driver.readableBuffer(kj::arrayPtr(&header, 1).asBytes()));
  if (data.size() > 0) buffers.add(driver.readableBuffer(data));
  buffers.add(writable(answer, 1));
  driver.add(buffers);
  return answer;
}

uint8_t NetDriver::waitForAnswer(FakeBroker& broker, uint64_t answer) {
  auto used = broker.waitForUsed(controlQueue, control());
  KJ_ASSERT(used.written == 1, used.written);
  return ram.bytes(answer, 1)[0];
}

}  // namespace troupe::net::testing
