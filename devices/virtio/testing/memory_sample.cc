// A virtio device that uses no queue and does, on demand, what a device that was taken over might
// do to reach more of the guest's memory than it was granted. memory_access_test.cc runs it in its
// jail, once for each kind of access.
#include "devices/virtio/testing/memory_sample.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "devices/virtio/device_main.h"
#include "devices/virtio/guest_memory.h"

namespace troupe::virtio::testing {
namespace {

constexpr uint64_t PAGE_BYTES = 4096;
constexpr uint64_t FAR = 64 << 20;  // more than any RAM of the test

int64_t answer(long result) {
  return result < 0 ? -errno : result;
}

int64_t isMapped(void* address) {
  return address == MAP_FAILED ? -errno : 0;
}

class SampleEngine final: public DeviceEngine {
 public:
  DeviceDescription describe() override {
    DeviceDescription description;
    description.deviceType = 42;
    description.features = 0;
    description.queueSizes = kj::heapArray<uint16_t>({8});
    description.config = kj::heapArray<kj::byte>(sizeof(Command) + sizeof(int64_t));
    description.configWriteMask = kj::heapArray<kj::byte>(description.config.size());
    memset(description.config.begin(), 0, description.config.size());
    memset(description.configWriteMask.begin(), 0xff, description.configWriteMask.size());
    return description;
  }

  void start(const GuestMemory& guestMemory, uint64_t, kj::Array<ActiveQueue>,
             DriverLink& driver) override {
    memory = guestMemory;
    link = driver;
  }

  kj::Promise<void> stop() override { return kj::READY_NOW; }

  void writeConfig(uint32_t, kj::ArrayPtr<const kj::byte> data) override {
    Command command;
    KJ_REQUIRE(data.size() == sizeof(command));
    memcpy(&command, data.begin(), sizeof(command));
    int64_t result = attempt(command);
    KJ_ASSERT_NONNULL(link).configChanged(RESULT_OFFSET, kj::arrayPtr(&result, 1).asBytes());
  }

 private:
  int64_t attempt(const Command& command) {
    if (command.what == Attempt::MAP_FD) {
      return isMapped(mmap(nullptr, PAGE_BYTES, PROT_READ, MAP_SHARED, command.address, 0));
    }
    KJ_IF_MAYBE (bytes, KJ_ASSERT_NONNULL(memory).slice(command.address, 1)) {
      return attemptAt(command, bytes->begin());
    }
    return -EFAULT;
  }

  int64_t attemptAt(const Command& command, kj::byte* byte) {
    void* page = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(byte) & ~(PAGE_BYTES - 1));
    kj::byte value = command.value;
    switch (command.what) {
      case Attempt::LOAD:
        copyOut(kj::arrayPtr(&value, 1), byte);
        return value;
      case Attempt::STORE:
        copyIn(byte, kj::arrayPtr(&value, 1));
        return 0;
      case Attempt::MAKE_WRITABLE:
        return answer(mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE));
      case Attempt::GROW:
        return isMapped(mremap(page, PAGE_BYTES, FAR, MREMAP_MAYMOVE));
      case Attempt::SHIFT:
        return answer(syscall(SYS_remap_file_pages, page, PAGE_BYTES, 0, 0, 0));
      case Attempt::MAP_FD:
        break;
    }
    return -EINVAL;
  }

  kj::Maybe<const GuestMemory&> memory;
  kj::Maybe<DriverLink&> link;
};

}  // namespace
}  // namespace troupe::virtio::testing

int main() {
  using troupe::virtio::testing::SampleEngine;
  return troupe::virtio::deviceMain(
      [](kj::AsyncIoContext&, troupe::sandbox::ActorSetup&) { return kj::heap<SampleEngine>(); });
}
