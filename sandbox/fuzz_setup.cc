// Fuzzes what an actor reads first of all, its setup message, and the last steps of its jail that
// follow from it, before a table of fds that knows whose each of them is.
#include <capnp/message.h>
#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "sandbox/actor_setup.h"
#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::sandbox {
namespace {

using fuzz::finding;
using fuzz::Op;

constexpr int MOST_FDS = 1024;        // as RLIMIT_NOFILE would have it
constexpr int FIRST_TO_ARRIVE = 900;  // what comes by RPC has numbers from here on

// The fds of a process that has just begun.
class FdTable {
 public:
  enum class Whose : uint8_t { NOBODYS, LAUNCHERS, SETUPS, ARRIVED };

  void begin(kj::ArrayPtr<const kj::byte> message) {
    std::fill(fds, fds + MOST_FDS, Whose::NOBODYS);
    for (int fd : {0, 1, LOG_FD, RPC_FD, SETUP_FD, 5, 17})
      fds[fd] = Whose::LAUNCHERS;
    setup = message;
    isNarrowed = false;
    isFaking = true;
  }
  void end() { isFaking = false; }
  void arrive(int fd) { fds[fd] = Whose::ARRIVED; }

  bool isOpen(int fd) const { return fd >= 0 && fd < MOST_FDS && fds[fd] != Whose::NOBODYS; }

  ssize_t read(int fd, void* to, size_t size) {
    if (fd != SETUP_FD) finding("an fd that is not the setup's is read");
    size = std::min(size, setup.size());
    memcpy(to, setup.begin(), size);
    setup = setup.slice(size, setup.size());
    return size;
  }
  int duplicate(int from, int to) {
    if (!isOpen(from) || to < 0 || to >= MOST_FDS) {
      errno = EBADF;
      return -1;
    }
    if (fds[to] != Whose::NOBODYS && fds[to] != Whose::SETUPS && !isNarrowed) {
      finding(kj::str("fd ", to, " is replaced, which is another's"));
    }
    fds[to] = Whose::SETUPS;
    return to;
  }
  int close(int fd) {
    if (fd < 0 || fd >= MOST_FDS || fds[fd] == Whose::NOBODYS) finding("an fd is closed twice");
    // Its own setup, once it has read it.
    if (fds[fd] != Whose::SETUPS && fd != SETUP_FD)
      finding(kj::str("fd ", fd, " is closed, which is another's"));
    fds[fd] = Whose::NOBODYS;
    return 0;
  }
  void install(const sock_fprog& program) {
    if (program.len == 0 || program.len > BPF_MAXINSNS) finding("a filter of no sound length");
    uint64_t sum = 0;
    for (uint16_t i = 0; i < program.len; i++)
      sum += program.filter[i].k;
    fuzzing::looked = sum;  // so that each instruction is looked at
    bool isOurs = false;
    for (auto one : programs)
      isOurs |= one.size() == program.len * sizeof(sock_filter);
    if (!isOurs) finding(kj::str("a filter of ", program.len, " steps was never sent"));
  }

  bool isFaking = false;
  // From "ready" on a number of the profile is the profile's, whatever is there.
  bool isNarrowed = false;
  std::vector<kj::ArrayPtr<const kj::byte>> programs;  // of the message

 private:
  Whose fds[MOST_FDS];
  kj::ArrayPtr<const kj::byte> setup;
};

FdTable& table() {
  static FdTable it;
  return it;
}

void fill(Setup::Builder setup, const fuzzing::Operations& ops) {
  setup.setName(ops.text(0, "rng0"));
  auto fds = ops.of(1);
  auto slots = setup.initFds(fds.size() + 1);
  slots[0].setName("kick");
  slots[0].setNumber(ops.number(2, 16));
  slots[0].setCount(4);
  for (uint32_t i = 0; i < fds.size(); i++) {
    slots[i + 1].setName(fuzzing::word(fds[i].a, "call"));
    slots[i + 1].setNumber(fds[i].a & 0x40 ? fds[i].c : 20 + 4 * i);
    slots[i + 1].setCount(fds[i].a & 0x20 ? fds[i].d : 1 + fds[i].b % 8);
  }
  auto filters = ops.of(3);
  auto list = setup.initFilters(filters.size());
  for (uint32_t i = 0; i < filters.size(); i++) {
    list[i].setStage(fuzzing::word(filters[i].a, i == 0 ? "ready"_kj : "run"_kj));
    size_t size = filters[i].a & 0x40 ? filters[i].c % 40000 : 8 * (filters[i].b % 40 + 1);
    if (filters[i].a == 0xff) size = 1200000;  // more than a setup may have
    list[i].setProgram(kj::heapArray<kj::byte>(size));
  }
  setup.setMdwe(ops.number(4, 0) & 1);
  setup.initIoUringOpcodes(ops.number(5, 0) % 300);
}

// As an actor goes on, in any order.
void perform(const ActorSetup& setup, ActorSetup& mine, const Op& op, uint8_t kind, int& arrived) {
  switch (kind) {
    case 6: {
      auto stage = fuzzing::word(op.a, op.b & 1 ? "ready"_kj : "run"_kj);
      table().isNarrowed |= !stage.startsWith("thread:");
      setup.enter(stage);
      break;
    }
    case 7:
    case 8: {
      int from = arrived < MOST_FDS - 1 ? arrived++ : arrived;
      table().arrive(from);
      setup.place(fuzzing::word(op.a, "kick"), op.b % 6, from);
      break;
    }
    case 9:
      mine.expectFds(op.c % 300);
      break;
    default:
      setup.fd(fuzzing::word(op.a, "kick"), op.c % 5);
      setup.fdCount(fuzzing::word(op.a, "call"));
      setup.ioUringOpcodes();
      setup.name();
      break;
  }
}

void run(kj::ArrayPtr<const kj::byte> input) {
  fuzzing::Operations ops(input, 11);
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<Setup>(), ops);
  auto words = capnp::messageToFlatArray(message);
  ops.poke(words.asBytes());
  auto bytes = words.asBytes();
  for (const Op& op : ops.of(10))
    if (op.a & 1) bytes = bytes.slice(0, op.c % (bytes.size() + 1));
  table().programs.clear();
  table().begin(bytes);
  KJ_DEFER(table().end());
  ActorSetup setup;
  // What is in it was checked for being a message only when it was read: so once more, by others.
  {
    capnp::FlatArrayMessageReader reader(words);
    for (auto filter : reader.getRoot<Setup>().getFilters())
      table().programs.push_back(filter.getProgram());
  }
  int arrived = FIRST_TO_ARRIVE;
  for (const Op& op : ops.between(6, 10)) {
    kj::runCatchingExceptions([&] { perform(setup, setup, op, op.kind % 12, arrived); });
  }
}

}  // namespace
}  // namespace troupe::sandbox

using troupe::sandbox::table;

extern "C" {

ssize_t __real_read(int fd, void* to, size_t size);
ssize_t __wrap_read(int fd, void* to, size_t size) {
  return table().isFaking ? table().read(fd, to, size) : __real_read(fd, to, size);
}
int __real_close(int fd);
int __wrap_close(int fd) {
  return table().isFaking ? table().close(fd) : __real_close(fd);
}
int __real_dup3(int from, int to, int flags);
int __wrap_dup3(int from, int to, int flags) {
  return table().isFaking ? table().duplicate(from, to) : __real_dup3(from, to, flags);
}
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, long argument) {
  if (!table().isFaking) return __real_fcntl(fd, command, argument);
  if (table().isOpen(fd)) return 0;
  errno = EBADF;
  return -1;
}
int __real_prctl(int option, ...);
int __wrap_prctl(int option, long a, long b, long c, long d) {
  return table().isFaking ? 0 : __real_prctl(option, a, b, c, d);
}
long __real_syscall(long number, ...);
// Takes six arguments, however many there are.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a)
    argument = va_arg(list, long);
  va_end(list);
  if (!table().isFaking || number != SYS_seccomp) {
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
  table().install(*reinterpret_cast<sock_fprog*>(a[2]));
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  // A setup that is none is an exception, and the end of the actor.
  kj::runCatchingExceptions([&] { troupe::sandbox::run(kj::arrayPtr(data, size)); });
  return 0;
}
}
