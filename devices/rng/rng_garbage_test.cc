// What a broker that somebody took over can write to a device in its jail. The entropy device
// stands for all: what reads the pipe is the same code in each (devices/virtio/device_main.cc).
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/wait.h>

#include "devices/rng/rng_profile.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/virtio/wire.h"
#include "protos/device.capnp.h"
#include "tests/rpc/garbage.h"

namespace troupe::rng {
namespace {

using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::JailedProcess;
using virtio::testing::ProcessBench;

Target device(uint32_t firstQuestion) {
  return Target{capnp::typeId<Device>(), 6, firstQuestion};
}

// A device that nobody has spoken to.
class FreshProcess final: public JailedProcess {
 public:
  FreshProcess()
      : JailedProcess(RNG_PROFILE, "troupe-rng", nullptr, nullptr, "devices/troupe-devices") {}

  void write(const Garbage& piece) {
    // It may hang up before it has read everything, and then it has read enough.
    kj::runCatchingExceptions([&] {
      io.provider->getTimer()
          .timeoutAfter(60 * kj::SECONDS, brokerEnd->write(piece.bytes.data(), piece.bytes.size()))
          .wait(io.waitScope);
    });
    brokerEnd = nullptr;
  }
};

// Neither a signal of the filter's nor one of the processor's, nor a hang, nor a failure of its
// own.
void expectOrderlyEnd(int status, const Garbage& piece) {
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
}

TEST(RngGarbage, BRK01_AFreshProcessEndsInOrder) {
  for (const Garbage& piece : garbage(device(0))) {
    FreshProcess process;
    process.write(piece);
    expectOrderlyEnd(process.waitForExit(), piece);
  }
}

TEST(RngGarbage, BRK01_AServingProcessEndsInOrder) {
  for (const Garbage& piece : garbage(device(1000))) {
    FakeRam ram;
    ProcessBench bench(ram, RNG_PROFILE, "troupe-rng", /*queueCount=*/1);
    bench.attach();
    FakeDriver driver(ram, 8);
    bench.activate(virtio::F_VERSION_1 | virtio::F_EVENT_IDX, {&driver});
    bench.sendRaw(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    bench.disconnect();
    expectOrderlyEnd(bench.waitForExit(), piece);
  }
}

}  // namespace
}  // namespace troupe::rng
