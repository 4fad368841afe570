// Takes the block device's place in its jail, makes a ring as one of its queue threads does, takes
// that thread's filter, and tries what the ring should refuse. ring_jailed_test.cc reads the
// report.
#include "devices/blk/testing/ring_probe.h"

#include <errno.h>
#include <kj/debug.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "devices/blk/restricted_ring.h"
#include "sandbox/actor_setup.h"
#include "sandbox/last_words.h"

namespace troupe::blk::testing {
namespace {

constexpr uint32_t CAPACITY = 8;
constexpr unsigned USE_REGISTERED_RING = 1u << 31;  // of io_uring_register; Linux 6.3

int32_t resultOf(io_uring& ring, uint8_t opcode, uint8_t flags) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring);
  *entry = {};
  entry->opcode = opcode;
  entry->flags = flags;
  int submitted = io_uring_submit_and_wait(&ring, 1);
  io_uring_cqe* completion;
  if (io_uring_peek_cqe(&ring, &completion) < 0) return submitted < 0 ? submitted : 0;
  int32_t result = completion->res;
  io_uring_cqe_seen(&ring, completion);
  return result;
}

int64_t registered(const io_uring& ring, unsigned operation) {
  long result = syscall(SYS_io_uring_register, ring.enter_ring_fd, operation | USE_REGISTERED_RING,
                        nullptr, 0);
  return result < 0 ? -errno : result;
}

struct Attempts {
  const sandbox::ActorSetup& setup;
  RingReport report = {};
  std::atomic<bool> done{false};
};

void* attemptAll(void* argument) {
  auto& attempts = *static_cast<Attempts*>(argument);
  RingReport& report = attempts.report;
  RingRules rules = {attempts.setup.ioUringOpcodes(), attempts.setup.ioUringSqeFlags()};
  int events = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int disk = attempts.setup.fd("disk");
  io_uring ring =
      makeRestrictedRing(kj::arrayPtr(&disk, 1), /*writable=*/true, CAPACITY, events, rules);
  for (unsigned i = 0; i < 64; i++)
    report.registrations[i] = registered(ring, i);
  attempts.setup.enter("thread:queue");
  for (int i = 0; i < 256; i++)
    report.opcodes[i] = resultOf(ring, i, rules.sqeFlags);
  for (int i = 0; i < 256; i++)
    report.flags[i] = resultOf(ring, IORING_OP_READV, i);
  attempts.done = true;
  // Its filter lets it neither end nor tell anybody.
  for (;;)
    __builtin_ia32_pause();
}

void play() {
  sandbox::ActorSetup setup;
  Attempts attempts{setup};
  pthread_t thread;
  int error = pthread_create(&thread, nullptr, attemptAll, &attempts);
  KJ_REQUIRE(error == 0, "no thread");
  while (!attempts.done)
    __builtin_ia32_pause();
  const RingReport& report = attempts.report;
  KJ_SYSCALL(write(sandbox::RPC_FD, &report, sizeof(report)));
}

}  // namespace
}  // namespace troupe::blk::testing

int main() {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(troupe::blk::testing::play)) {
    troupe::sandbox::sayLastWords("the ring probe", *exception);
    _exit(1);
  }
  _exit(0);
}
