#include "devices/recorder/recorder_main.h"

#include <capnp/message.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/array.h>
#include <kj/debug.h>
#include <linux/falloc.h>
#include <poll.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "devices/virtio/flight_log.h"
#include "sandbox/actor_setup.h"
#include "sandbox/last_words.h"

namespace troupe::recorder {
namespace {

using virtio::FlightLog;

constexpr size_t STEP_BYTES = 256 << 10;
// Between two looks while the device records nothing: soon at first, and seldom after a while.
constexpr long FIRST_PAUSE_NS = 2000000;
constexpr long LONGEST_PAUSE_NS = 256000000;

void say(kj::StringPtr line) {
  ssize_t written = write(sandbox::LOG_FD, line.begin(), line.size());
  static_cast<void>(written);
}

class Carrying {
 public:
  Carrying(int memory, int file, int control)
      : memory(memory), file(file), control(control), bytes(kj::heapArray<kj::byte>(STEP_BYTES)) {
    off_t end;
    KJ_SYSCALL(end = lseek(memory, 0, SEEK_END));
    size = end;
  }

  // False when the file takes no more.
  bool run() {
    long pause = FIRST_PAUSE_NS;
    for (;;) {
      bool isOver = wait(pause);
      pause = kj::min(pause * 2, LONGEST_PAUSE_NS);
      // Looked at first: nothing is recorded behind it, and what came before is carried yet.
      bool wasFull = isFull();
      for (;;) {
        uint64_t end = recorded();
        if (end == carried) break;
        if (!carry(kj::min(end - carried, uint64_t(STEP_BYTES)))) return false;
        pause = FIRST_PAUSE_NS;
      }
      if (wasFull) {
        say("TRP-rec-005: the recording has reached its limit and ends here; the VM goes on\n");
        return finish(FlightEvent::End::LIMIT);
      }
      if (isOver) return finish(FlightEvent::End::VM);
    }
  }

 private:
  // What the device says of itself, anything at all: it never takes us back, nor past the end.
  uint64_t recorded() {
    uint64_t end = word<uint64_t>(offsetof(FlightLog::Head, end));
    return end < carried || end > size ? carried : end;
  }

  bool isFull() { return word<uint32_t>(offsetof(FlightLog::Head, isFull)) != 0; }

  template <typename T>
  T word(off_t offset) {
    T value = 0;
    ssize_t got;
    KJ_SYSCALL(got = pread(memory, &value, sizeof(value), offset));
    return value;
  }

  bool carry(size_t count) {
    ssize_t got;
    KJ_SYSCALL(got = pread(memory, bytes.begin(), count, carried));
    if (!put(bytes.slice(0, got))) return false;
    carried += got;
    // Whole pages that nobody needs any more.
    uint64_t done = carried & ~uint64_t(4095);
    if (done > freed) {
      KJ_SYSCALL(
          fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, freed, done - freed));
      freed = done;
    }
    return true;
  }

  bool put(kj::ArrayPtr<const kj::byte> part) {
    while (part.size() > 0) {
      ssize_t written = write(file, part.begin(), part.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      part = part.slice(written, part.size());
    }
    return true;
  }

  bool finish(FlightEvent::End why) {
    capnp::word space[16] = {};
    capnp::FlatMessageBuilder message(kj::arrayPtr(space + 1, kj::size(space) - 1));
    message.initRoot<FlightEvent>().setEnded(why);
    uint32_t table[2] = {0, uint32_t(message.getSegmentsForOutput()[0].size())};
    memcpy(space, table, sizeof(table));
    return put(kj::arrayPtr(space, 1 + table[1]).asBytes());
  }

  // True when `troupe` wants no more of this.
  bool wait(long ns) {
    pollfd waiting{control, POLLIN, 0};
    timespec limit{0, ns};
    int ready = ppoll(&waiting, 1, &limit, nullptr);
    return ready > 0;
  }

  const int memory;
  const int file;
  const int control;
  kj::Array<kj::byte> bytes;
  uint64_t size;
  uint64_t carried = FlightLog::FIRST_EVENT;
  uint64_t freed = FlightLog::FIRST_EVENT;
};

void stop(int memory) {
  uint32_t full = 1;
  KJ_SYSCALL(pwrite(memory, &full, sizeof(full), offsetof(FlightLog::Head, isFull)));
}

void play() {
  sandbox::ActorSetup setup;
  int memory = setup.fd("recording");
  Carrying carrying(memory, setup.fd("file"), setup.fd("control"));
  setup.enter("run");
  if (carrying.run()) return;
  int error = errno;
  stop(memory);
  KJ_FAIL_REQUIRE(
      kj::str("TRP-rec-004: the recording ends here, and the VM goes on: its file "
              "cannot be written: ",
              strerror(error)));
}

}  // namespace

int recorderMain() {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(play)) {
    sandbox::sayLastWords("the recorder ends", *exception);
    _exit(1);
  }
  _exit(0);
}

}  // namespace troupe::recorder
