// What a broker or a connector that somebody took over can write to the device in its jail.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "devices/vsock/testing/vsock_bench.h"
#include "protos/device.capnp.h"
#include "tests/rpc/garbage.h"

namespace troupe::vsock {
namespace {

using testing::VsockBench;
using testing::Where;
using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;

// Neither a signal of the filter's nor one of the processor's, nor a hang, nor a failure of its
// own.
void expectOrderlyEnd(int status, const Garbage& piece) {
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
}

TEST(VsockGarbage, BRK01_AServingProcessEndsInOrder) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<Device>(), 6, 1000})) {
    VsockBench bench(Where::IN_JAIL);
    bench.start();
    auto host = bench.connectOut(1024, 52);
    bench.device().sendRaw(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    bench.device().disconnect();
    expectOrderlyEnd(KJ_ASSERT_NONNULL(bench.process).waitForExit(), piece);
  }
}

// The connector is `troupe`, or whoever a realm puts there. Streams that exist go on without it.
TEST(VsockGarbage, BRK01_ConnectorThatWritesNonsenseFindsNobodyAnyMore) {
  for (const Garbage& piece : garbage(Target{capnp::typeId<Connector>(), 1, 1000})) {
    VsockBench bench(Where::IN_JAIL);
    bench.start();
    auto host = bench.connectOut(1024, 52);
    bench.spoilConnector(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    bench.send(OP_REQUEST, 1025, 52);
    bench.expect(OP_RST);
    bench.send(OP_RW, 1024, 52, "on");
    EXPECT_EQ(bench.read(host, 2), "on") << piece.name;
    bench.device().disconnect();
    expectOrderlyEnd(KJ_ASSERT_NONNULL(bench.process).waitForExit(), piece);
  }
}

}  // namespace
}  // namespace troupe::vsock
