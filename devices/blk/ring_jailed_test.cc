// The ring of a queue thread, made by the code that ships, in the jail that ships: of everything
// io_uring can do it does what the profile names.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <liburing.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/ring_probe.h"
#include "devices/blk/testing/scratch_disk.h"
#include "sandbox/launcher.h"

namespace troupe::blk {
namespace {

using testing::RingReport;

// What the probe reports from its jail.
RingReport probe() {
  auto io = kj::setupAsyncIo();
  testing::ScratchDisk disk(testing::Medium::MEMORY, 1 << 20);
  int sockets[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  kj::AutoCloseFd ours(sockets[0]), theirs(sockets[1]);
  int file;
  KJ_SYSCALL(file = open("devices/blk/testing/ring_probe", O_RDONLY | O_CLOEXEC));
  kj::AutoCloseFd program(file);
  int log[2];
  KJ_SYSCALL(pipe2(log, O_CLOEXEC));
  kj::AutoCloseFd logRead(log[0]), logWrite(log[1]);
  sandbox::HandedFd fds[] = {{"log", 0, logWrite}, {"rpc", 0, theirs}, {"disk", 0, disk.fd()}};
  sandbox::Launcher launcher(io.unixEventPort, sandbox::Jail::ON);
  auto child = launcher.launch(BLK_PROFILE, program, "ring_probe", "blk0", fds, nullptr);
  int status = child->onExit().wait(io.waitScope);
  logWrite = nullptr;
  char words[1024];
  ssize_t size = read(logRead, words, sizeof(words));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
      << status << " " << std::string(words, size);
  KJ_IF_MAYBE (refused, child->refusedCall()) {
    ADD_FAILURE() << refused->call.cStr();
  }
  RingReport report = {};
  EXPECT_EQ(ssize_t(sizeof(report)), recv(ours, &report, sizeof(report), MSG_DONTWAIT));
  return report;
}

// The last operation this kernel has; what is beyond is unknown to it.
int lastOpcode() {
  io_uring_probe* all = io_uring_get_probe();
  KJ_REQUIRE(all != nullptr);
  int last = all->last_op;
  io_uring_free_probe(all);
  return last;
}

std::set<int> named() {
  const auto& layers = BLK_PROFILE.layers;
  return std::set<int>(layers.ioUringOpcodes, layers.ioUringOpcodes + layers.ioUringOpcodeCount);
}

TEST(RingJailed, EveryOperationButThoseOfTheProfileIsRefused) {
  RingReport report = probe();
  std::set<int> allowed = named();
  EXPECT_EQ(allowed, (std::set<int>{IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                    IORING_OP_FALLOCATE}));
  int last = lastOpcode();
  EXPECT_GE(last, int(IORING_OP_LAST) - 1);
  for (int opcode = 0; opcode < 256; opcode++) {
    if (allowed.count(opcode) > 0) {
      EXPECT_NE(-EACCES, report.opcodes[opcode]) << opcode;
    } else {
      EXPECT_EQ(opcode <= last ? -EACCES : -EINVAL, report.opcodes[opcode]) << opcode;
    }
  }
}

TEST(RingJailed, EveryFlagButThoseOfTheProfileIsRefused) {
  RingReport report = probe();
  EXPECT_EQ(IOSQE_FIXED_FILE, BLK_PROFILE.layers.ioUringSqeFlags);
  for (int flags = 0; flags < 256; flags++) {
    int result = report.flags[flags];
    if (flags == IOSQE_FIXED_FILE) {
      EXPECT_EQ(0, result);
    } else {
      // Bits that are no flag, or that do not go together, are refused for that.
      EXPECT_TRUE(result == -EACCES || result == -EINVAL || result == -EOPNOTSUPP)
          << flags << ": " << result;
    }
  }
}

TEST(RingJailed, NothingMoreCanBeRegistered) {
  RingReport report = probe();
  for (int operation = 0; operation < 64; operation++)
    EXPECT_LT(report.registrations[operation], 0) << operation;
  // Where the kernel finds the ring at all, that is why.
  int64_t files = report.registrations[IORING_REGISTER_FILES_UPDATE];
  EXPECT_TRUE(files == -EACCES || files == -EINVAL || files == -EBADF) << files;
}

}  // namespace
}  // namespace troupe::blk
