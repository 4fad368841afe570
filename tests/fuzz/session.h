#pragma once

#include <kj/common.h>
#include <kj/memory.h>

#include <vector>

#include "devices/virtio/virtqueue.h"
#include "tests/fuzz/arena.h"
#include "tests/fuzz/fuzzed_device.h"
#include "tests/fuzz/guest_driver.h"
#include "tests/fuzz/watch.h"

namespace troupe::fuzz {

// One input, from the first operation to a device at rest: plays broker and driver to a device in
// this process, and after every turn looks at what the driver sees. With Watch, this is what knows
// right from wrong.
class Session final: private Watch::Listener {
 public:
  // `arena` and `watch` are those of the process, as new after each session.
  Session(Arena& arena, Watch& watch, FuzzedDevice& device);
  ~Session() noexcept(false);
  KJ_DISALLOW_COPY(Session);

  void run(kj::ArrayPtr<const kj::byte> input);

 private:
  void taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
             kj::ArrayPtr<const iovec> writable) override;
  void returned(const void* ring, uint16_t head, uint32_t written) override;
  uint16_t queueOf(const void* ring) const;

  void perform(const Op& op);
  void start();
  void stop();
  void kick(uint16_t queue);
  void lookAtUsed(uint16_t queue);
  void interleave(const Op& op);
  void settle();

  Arena& arena;
  Watch& watch;
  FuzzedDevice& device;
  const std::vector<uint16_t> sizes;
  GuestDriver driver;
  const virtio::GuestMemory memory;
  uint64_t features;
  bool active = false;
  std::vector<kj::Own<virtio::Virtqueue>> rings;
  std::vector<std::vector<Watch::Returned>> unseen;  // returned, and the driver not yet told
  std::vector<bool> usedIsOdd;  // the driver cannot tell any more what the device did
};

// What LLVMFuzzerTestOneInput of every queue's target is: a session with a new device.
template <typename Device>
int runOnce(const uint8_t* data, size_t size);

// For runOnce().
void runSession(FuzzedDevice& device, kj::ArrayPtr<const kj::byte> input);

template <typename Device>
int runOnce(const uint8_t* data, size_t size) {
  Device device;
  runSession(device, kj::arrayPtr(data, size));
  return 0;
}

}  // namespace troupe::fuzz
