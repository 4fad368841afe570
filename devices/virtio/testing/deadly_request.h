#pragma once

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdint>

#include "devices/virtio/kept_memory.h"
#include "devices/virtio/quarantine.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/testing/deadly_bytes.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::virtio::testing {

// What the processes of a device have put aside, in a file that outlives them.
class KeptView {
 public:
  static constexpr uint64_t BYTES = KeptMemory::END;

  // `file` is as long at least, and borrowed for the constructor alone.
  explicit KeptView(int file) {
    void* place = mmap(nullptr, BYTES, PROT_READ, MAP_SHARED, file, 0);
    KJ_ASSERT(place != MAP_FAILED);
    memory = kj::arrayPtr(static_cast<kj::byte*>(place), BYTES);
    requests.emplace(KeptMemory(memory.slice(sizeof(CounterPage), BYTES)).quarantine);
  }
  ~KeptView() noexcept { munmap(memory.begin(), memory.size()); }
  KJ_DISALLOW_COPY(KeptView);

  // There is one request, of this queue, with these bytes.
  void expectOne(uint16_t queue, kj::ArrayPtr<const kj::byte> bytes) {
    auto& quarantine = KJ_ASSERT_NONNULL(requests);
    ASSERT_EQ(quarantine.count(), 1u);
    auto read = quarantine.read(0);
    auto& kept = KJ_ASSERT_NONNULL(read);
    EXPECT_EQ(kept.request.queue, queue);
    EXPECT_TRUE(kept.bytes == bytes);
  }

 private:
  kj::ArrayPtr<kj::byte> memory;
  kj::Maybe<Quarantine> requests;
};

// Such a file, for all that a device keeps.
struct KeptFile {
  int fd() const { return file.writable; }
  void expectOne(uint16_t queue, kj::ArrayPtr<const kj::byte> bytes) {
    view.expectOne(queue, bytes);
  }

  sandbox::SharedMemory file = sandbox::makeSharedMemory("journals", 16 << 20);
  KeptView view{file.readOnly};
};

// The device died of itself.
inline void expectDeath(JailedProcess& process) {
  int status = process.waitForExit();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL) << status;
}

}  // namespace troupe::virtio::testing
