#include "devices/blk/restricted_ring.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <string.h>
#include <unistd.h>

namespace troupe::blk {
namespace {

// A few kernel threads serve what cannot be begun without waiting (syncs, buffered writes).
constexpr unsigned MAX_WORKERS = 4;

void check(int result, kj::StringPtr step) {
  KJ_REQUIRE(result >= 0,
             "TRP-blk-006: the host's io_uring cannot be set up; `sysctl kernel.io_uring_disabled` "
             "must say 0 and the kernel be 6.1 or newer",
             step, strerror(-result));
}

io_uring create(uint32_t capacity) {
  io_uring ring;
  io_uring_params params = {};
  // One thread submits and reaps, and reaps when it likes: the kernel need not interrupt it.
  params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  params.cq_entries = capacity * 2;
  check(io_uring_queue_init_params(capacity, &ring, &params), "io_uring_setup");
  return ring;
}

bool changesNothing(uint8_t opcode) {
  return opcode == IORING_OP_READV || opcode == IORING_OP_FSYNC;
}

void restrict(io_uring& ring, bool writable, const RingRules& rules) {
  kj::Vector<io_uring_restriction> allowed(rules.opcodes.size() + 1);
  for (uint8_t opcode : rules.opcodes) {
    if (!writable && !changesNothing(opcode)) continue;
    io_uring_restriction entry = {};
    entry.opcode = IORING_RESTRICTION_SQE_OP;
    entry.sqe_op = opcode;
    allowed.add(entry);
  }
  // What is required is allowed, and as nothing else is said to be allowed, no more than that.
  io_uring_restriction flags = {};
  flags.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
  flags.sqe_flags = rules.sqeFlags;
  allowed.add(flags);
  check(io_uring_register_restrictions(&ring, allowed.begin(), allowed.size()), "restrictions");
}

}  // namespace

io_uring makeRestrictedRing(kj::ArrayPtr<const int> files, bool writable, uint32_t capacity,
                            int eventFd, const RingRules& rules) {
  io_uring ring = create(capacity);
  KJ_ON_SCOPE_FAILURE(io_uring_queue_exit(&ring));
  check(io_uring_register_files(&ring, files.begin(), files.size()), "files");
  check(io_uring_register_eventfd(&ring, eventFd), "eventfd");
  unsigned workers[2] = {MAX_WORKERS, 1};
  check(io_uring_register_iowq_max_workers(&ring, workers), "workers");
  restrict(ring, writable, rules);
  check(io_uring_register_ring_fd(&ring), "ring fd");
  check(io_uring_enable_rings(&ring), "enable");
  close(ring.ring_fd);
  ring.ring_fd = -1;
  return ring;
}

}  // namespace troupe::blk
