#include "sandbox/actor_setup.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "sandbox/errno_text.h"
#include "tests/fuzz/planted.h"

#ifndef PR_SET_MDWE  // Linux 6.3; Debian 12's headers are older
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

namespace troupe::sandbox {
namespace {

// Far above any profile; a setup that is larger did not come from the launcher.
constexpr size_t MAX_SETUP_BYTES = 1 << 20;
constexpr kj::uint MOST_NUMBER = 65535;  // of an fd

kj::Array<capnp::word> readToEnd(int fd) {
  kj::Array<capnp::word> words = kj::heapArray<capnp::word>(4096 / sizeof(capnp::word));
  size_t size = 0;
  for (;;) {
    auto bytes = words.asBytes();
    if (size == bytes.size()) {
      KJ_REQUIRE(size < MAX_SETUP_BYTES, "TRP-jail-020: the setup message is too large", size);
      auto larger = kj::heapArray<capnp::word>(words.size() * 2);
      memcpy(larger.begin(), words.begin(), size);
      words = kj::mv(larger);
      bytes = words.asBytes();
    }
    ssize_t n;
    KJ_SYSCALL(n = read(fd, bytes.begin() + size, bytes.size() - size), "reading the setup");
    if (n == 0) break;
    size += n;
  }
  KJ_REQUIRE(size % sizeof(capnp::word) == 0 && size > 0,
             "TRP-jail-020: the setup message is not whole words", size);
  auto message = kj::heapArray<capnp::word>(size / sizeof(capnp::word));
  memcpy(message.begin(), words.begin(), size);
  return message;
}

bool isOpen(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

// From here on no mapping of this process is writable and executable at once, and none becomes
// executable that was not mapped so; a filter sees the calls, this the pages. It belongs to the
// memory a process has, and until the exec that is `troupe`'s: so it is the actor that asks for it.
// It cannot be undone, and stays over every exec.
void refuseNewCode() {
  long result = prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
  if (result >= 0) return;
  KJ_FAIL_REQUIRE(
      kj::str("TRP-jail-024: the kernel does not keep this process's memory from becoming "
              "executable (PR_SET_MDWE): ",
              errnoText(errno)));
}

}  // namespace

ActorSetup::ActorSetup() {
  KJ_REQUIRE(isOpen(SETUP_FD),
             "TRP-int-103: this program plays a part in a VM and is started by `troupe` alone; to "
             "run a VM, use `troupe run`");
  {
    kj::AutoCloseFd setup(SETUP_FD);
    words = readToEnd(setup);
  }
  message = kj::heap<capnp::FlatArrayMessageReader>(words);
  checkNumbers();
  if (root().getMdwe()) refuseNewCode();
  growFdTable();
}

void ActorSetup::checkNumbers() const {
  for (auto slot : root().getFds()) {
    KJ_REQUIRE(slot.getNumber() <= MOST_NUMBER && slot.getCount() <= MOST_NUMBER,
               "TRP-jail-020: the setup message has an fd whose number cannot be", slot.getName(),
               slot.getNumber(), slot.getCount());
  }
}

// In a process with threads the kernel waits for all its CPUs each time the table grows, for
// milliseconds: so it has its full size before there is one.
void ActorSetup::growFdTable() const {
  int last = 0;
  for (auto slot : root().getFds())
    last = kj::max(last, int(slot.getNumber() + slot.getCount()) - 1);
  if (isOpen(last)) return;
  KJ_SYSCALL(dup3(LOG_FD, last, O_CLOEXEC), last);
  close(last);
}

bool ActorSetup::inProfile(int number) const {
  for (auto slot : root().getFds()) {
    int first = slot.getNumber();
    if (number >= first && number - first < int(slot.getCount())) return true;
  }
  return false;
}

void ActorSetup::expectFds(kj::uint count) {
  // Each takes the lowest free number. Were that the number of another fd of the profile, place()
  // would find it taken when that one comes: so the numbers they would meet are kept busy.
  for (int number = 0; count > 0 && number < FIRST_NOT_RESERVED; number++) {
    if (isOpen(number)) continue;
    if (!inProfile(number)) {
      count--;
      continue;
    }
    KJ_SYSCALL(dup3(LOG_FD, number, O_CLOEXEC), number);
    reserved[number] = true;
    own[number] = true;
  }
}

Setup::Reader ActorSetup::root() const {
  // The reader is the same one every time: getRoot() only follows the first pointer.
  return const_cast<capnp::MessageReader&>(*message).getRoot<Setup>();
}

kj::StringPtr ActorSetup::name() const {
  return root().getName();
}

bool ActorSetup::isSuccessor() const {
  return root().getIsSuccessor();
}

kj::ArrayPtr<const kj::byte> ActorSetup::ioUringOpcodes() const {
  return root().getIoUringOpcodes();
}

kj::byte ActorSetup::ioUringSqeFlags() const {
  return root().getIoUringSqeFlags();
}

int ActorSetup::fd(kj::StringPtr name, kj::uint index) const {
  for (auto slot : root().getFds()) {
    if (slot.getName() == name) {
      KJ_REQUIRE(index < slot.getCount(), "no such fd in the range", name, index);
      return slot.getNumber() + index;
    }
  }
  KJ_FAIL_REQUIRE("the actor has no fd of this name", name);
}

kj::uint ActorSetup::fdCount(kj::StringPtr name) const {
  for (auto slot : root().getFds()) {
    if (slot.getName() == name) return slot.getCount();
  }
  return 0;
}

int ActorSetup::place(kj::StringPtr name, kj::uint index, int from) const {
  int to = fd(name, index);
  bool isOurs = to < FIRST_NOT_RESERVED && (narrowed || own[to]);
  isOurs |= fuzz::isPlanted(fuzz::Bug::FD_TAKEN);
  KJ_REQUIRE(from != to && (isOurs || !isOpen(to)), "TRP-jail-023: another fd is at this number",
             name, index, to);
  KJ_SYSCALL(dup3(from, to, O_CLOEXEC), name, index, from);
  if (to < FIRST_NOT_RESERVED) {
    own[to] = true;
    reserved[to] = false;
  }
  return to;
}

void ActorSetup::enter(kj::StringPtr stage) const {
  auto filters = root().getFilters();
  auto find = [&](kj::StringPtr name) -> kj::Maybe<capnp::Data::Reader> {
    for (auto filter : filters) {
      if (filter.getStage() == name) return filter.getProgram();
    }
    return nullptr;
  };

  if (stage.startsWith("thread:")) {
    KJ_IF_MAYBE (program, find(stage)) {
      install(stage, *program);
    }
    return;
  }
  bool first = !narrowed;
  narrowed = true;
  if (first) {
    for (int number = 0; number < FIRST_NOT_RESERVED; number++) {
      if (reserved[number]) close(number);
    }
    reserved.reset();
  }
  KJ_IF_MAYBE (program, find(stage)) {
    install(stage, *program);
  } else if (stage == "run" && first) {
    // Where the two stages allow the same, there is one filter for both.
    KJ_IF_MAYBE (program, find("ready")) {
      install("ready", *program);
    }
  }
}

void ActorSetup::install(kj::StringPtr stage, capnp::Data::Reader program) const {
  KJ_REQUIRE(program.size() % sizeof(sock_filter) == 0 && program.size() > 0 &&
                 program.size() / sizeof(sock_filter) <= BPF_MAXINSNS,
             "TRP-jail-021: the filter is not a seccomp program", stage, program.size());
  sock_fprog prog;
  prog.len = program.size() / sizeof(sock_filter);
  // Data in a message is aligned to words, and the kernel only reads it.
  prog.filter = reinterpret_cast<sock_filter*>(const_cast<kj::byte*>(program.begin()));

  kj::uint flags = stage.startsWith("thread:") ? 0 : SECCOMP_FILTER_FLAG_TSYNC;
  long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
  if (result > 0) {
    // A thread has taken its own filter already and keeps that; attestation sees to it that every
    // thread has one or the other.
    result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
  }
  if (result < 0) {
    int error = errno;
    KJ_FAIL_REQUIRE(kj::str("TRP-jail-022: the kernel refused the filter of stage ", stage, ": ",
                            errnoText(error)));
  }
}

}  // namespace troupe::sandbox
