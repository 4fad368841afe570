// io_uring: its operations pass no system call filter, only the ring's own restrictions.

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/stat.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <utility>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

// The rings in memory of the process's own, since 6.5.
constexpr uint32_t OWN_MEMORY = 1 << 14;

long makeRing(uint32_t flags) {
  io_uring_params parameters = {};
  parameters.flags = flags;
  return call(SYS_io_uring_setup, 4, &parameters);
}

long makeRingInOwnMemory() {
  alignas(PAGE) static char rings[PAGE], entries[PAGE];
  io_uring_params parameters = {};
  parameters.flags = OWN_MEMORY;
  parameters.cq_off.resv2 = reinterpret_cast<uint64_t>(rings);
  parameters.sq_off.resv2 = reinterpret_cast<uint64_t>(entries);
  return call(SYS_io_uring_setup, 4, &parameters);
}

// A ring without restrictions, with room for one request at a time.
class Ring {
 public:
  long open() {
    io_uring_params parameters = {};
    long result = call(SYS_io_uring_setup, 4, &parameters);
    if (result < 0) return result;
    fd = result;
    submissions = parameters.sq_off;
    completions = parameters.cq_off;
    if (!map(rings, IORING_OFF_SQ_RING) || !map(entries, IORING_OFF_SQES)) return -errno;
    return 0;
  }

  // The answer to one request.
  long run(const io_uring_sqe& request) {
    memcpy(entries, &request, sizeof(request));
    at(submissions.array) = 0;
    __atomic_store_n(&at(submissions.tail), at(submissions.tail) + 1, __ATOMIC_RELEASE);
    long result = call(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (result < 0) return result;
    uint32_t head = at(completions.head);
    if (head == __atomic_load_n(&at(completions.tail), __ATOMIC_ACQUIRE)) return -EAGAIN;
    auto answers = reinterpret_cast<io_uring_cqe*>(rings + completions.cqes);
    long answered = answers[head & at(completions.ring_mask)].res;
    at(completions.head) = head + 1;
    return answered;
  }

 private:
  // As liburing maps them; both are smaller.
  static constexpr size_t SIZE = PAGE;

  bool map(char*& where, off_t offset) {
    void* memory =
        mmap(nullptr, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    where = static_cast<char*>(memory);
    return memory != MAP_FAILED;
  }

  uint32_t& at(uint32_t offset) { return *reinterpret_cast<uint32_t*>(rings + offset); }

  int fd = -1;
  char* rings = nullptr;
  char* entries = nullptr;
  io_sqring_offsets submissions = {};
  io_cqring_offsets completions = {};
};

long once(const io_uring_sqe& request) {
  Ring ring;
  long result = ring.open();
  return result < 0 ? result : ring.run(request);
}

io_uring_sqe onPath(uint8_t operation, const char* path) {
  io_uring_sqe request = {};
  request.opcode = operation;
  request.fd = AT_FDCWD;
  request.addr = reinterpret_cast<uint64_t>(path);
  return request;
}

long openBySubmission(const char* path) {
  return once(onPath(IORING_OP_OPENAT, path));
}

long statBySubmission() {
  static char buffer[256];
  io_uring_sqe request = onPath(IORING_OP_STATX, "/");
  request.len = STATX_ALL;
  request.addr2 = reinterpret_cast<uint64_t>(buffer);
  return once(request);
}

io_uring_sqe socketRequest(int family) {
  io_uring_sqe request = {};
  request.opcode = IORING_OP_SOCKET;
  request.fd = family;
  request.off = SOCK_STREAM | SOCK_CLOEXEC;
  return request;
}

long connectBySubmission(uint16_t port) {
  Ring ring;
  long result = ring.open();
  if (result < 0) return result;
  long fd = ring.run(socketRequest(AF_INET));
  if (fd < 0) return fd;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  io_uring_sqe request = {};
  request.opcode = IORING_OP_CONNECT;
  request.fd = fd;
  request.addr = reinterpret_cast<uint64_t>(&address);
  request.off = sizeof(address);
  return ring.run(request);
}

}  // namespace

void addRings(List& list) {
  constexpr const char* GROUP = "io_uring";
  for (auto [name, flags] : {std::pair{"a ring", uint32_t{0}},
                             {"a ring polled by the kernel", uint32_t{IORING_SETUP_SQPOLL}},
                             {"a ring to be restricted", uint32_t{IORING_SETUP_R_DISABLED}}}) {
    uint32_t chosen = flags;
    list.add(GROUP, name, [=](const Targets&) { return makeRing(chosen); });
  }
  list.add("io_uring in own memory", "set-up",
           [](const Targets&) { return makeRingInOwnMemory(); });
  for (const char* path : {"/", "/etc/passwd", "/proc/self/mem"}) {
    list.add(GROUP, std::string("open of ") + path,
             [=](const Targets&) { return openBySubmission(path); });
  }
  list.add(GROUP, "stat", [](const Targets&) { return statBySubmission(); });
  list.add(GROUP, "unlink",
           [](const Targets&) { return once(onPath(IORING_OP_UNLINKAT, "/troupe-probe")); });
  list.add(GROUP, "mkdir",
           [](const Targets&) { return once(onPath(IORING_OP_MKDIRAT, "/troupe-probe")); });
  list.add(GROUP, "socket", [](const Targets&) { return once(socketRequest(AF_INET)); });
  list.add(GROUP, "socket of the UNIX family",
           [](const Targets&) { return once(socketRequest(AF_UNIX)); });
  list.add(GROUP, "TCP to the host",
           [](const Targets& outside) { return connectBySubmission(outside.tcpPort); });
  // Names no ring: with an fd that is none, so they do nothing but pass.
  list.plain(GROUP, "enter", SYS_io_uring_enter, -1, 0, 0, 0, nullptr, 0);
  list.plain(GROUP, "register", SYS_io_uring_register, -1, IORING_REGISTER_PERSONALITY, nullptr, 0);
}

}  // namespace troupe::sandbox::probe
