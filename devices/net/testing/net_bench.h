#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>

#include "devices/net/frame_backend.h"
#include "devices/net/net_engine.h"
#include "devices/net/stream_backend.h"
#include "devices/net/testing/net_driver.h"
#include "devices/virtio/testing/device_bench.h"

namespace troupe::net::testing {

// A test's own process as an engine's: fds stay where they are, no filter.
class OpenProcess final: public NetProcess {
 public:
  kj::AutoCloseFd keep(kj::StringPtr, uint32_t, kj::AutoCloseFd fd) override { return kj::mv(fd); }
  void confineThread() override { ++threads; }
  std::atomic<uint32_t> threads{0};
};

// One network device on sockets, its engine in this process, and its driver.
class NetBench: public NetDriver {
 public:
  struct Options {
    uint16_t pairs = 1;
    uint64_t features = FEATURES;
    int socketType = SOCK_SEQPACKET;  // SOCK_STREAM: with lengths
    bool headers = false;
    uint16_t ringSize = 256;
    bool activated = true;
    NetOptions device;  // its address is OWN
    int capture = -1;
    uint64_t captureBytes = 1 << 20;
    uint32_t captureFrameBytes = 65535;
  };
  NetBench() : NetBench(Options()) {}
  explicit NetBench(const Options& options);
  // Ends with a reset, as a device that is not its whole process must: RAM goes with the actor.
  ~NetBench() noexcept(false);

  Peer& peer(uint16_t pair = 0) { return cables[pair]->peer; }
  int deviceSocket() const { return cables[0]->device; }

  // What the next frame of the guest's is when it has got out.
  Bytes waitForFrame(uint16_t pair = 0);

  // NetDriver's, with this device.
  void send(kj::ArrayPtr<const kj::byte> frame, uint16_t pair = 0) {
    NetDriver::send(device, frame, pair);
  }
  void send(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame) {
    NetDriver::send(device, header, frame);
  }
  void waitForSent(uint32_t count, uint16_t pair = 0) {
    NetDriver::waitForSent(device, count, pair);
  }
  void offer(uint32_t count, uint32_t bytes, uint16_t pair = 0) {
    NetDriver::offer(device, count, bytes, pair);
  }
  Arrival waitForArrival(uint16_t pair = 0) { return NetDriver::waitForArrival(device, pair); }
  template <typename T>
  uint8_t command(uint8_t commandClass, uint8_t number, const T& data) {
    return NetDriver::command(device, commandClass, number, data);
  }
  uint8_t command(uint8_t commandClass, uint8_t number, kj::ArrayPtr<const kj::byte> data) {
    return NetDriver::command(device, commandClass, number, data);
  }
  // Sends a frame that is sent last of all, and says whether nothing came before it.
  bool nothingWasSent();

  // The status word (§5.1.4) as the broker was told it last.
  uint16_t status();

 private:
  kj::Own<virtio::DeviceEngine> makeEngine(kj::AsyncIoContext& io, const Options& options);

  kj::Vector<kj::Own<Cable>> cables;
  kj::Vector<kj::Own<Backend>> backends;
  kj::Maybe<kj::Own<Capture>> capture;
  OpenProcess process;

 public:
  virtio::testing::DeviceBench device;
};

}  // namespace troupe::net::testing
