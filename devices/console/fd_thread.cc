#include "devices/console/fd_thread.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/mutex.h>
#include <kj/thread.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace troupe::console {

using Fulfiller = kj::CrossThreadPromiseFulfiller<ssize_t>;

// Both threads hold it, since the worker may sit in a system call when the owner goes.
class FdThread::Shared final: public kj::AtomicRefcounted {
 public:
  Shared(int fd, Direction direction)
      : fd(fd), direction(direction), buffer(kj::heapArray<kj::byte>(BUFFER_SIZE)) {}

  void run() const {
    state.lockExclusive()->started = true;
    for (;;) {
      kj::Own<Fulfiller> done;
      size_t size = 0;
      bool ended = state.when([](const State& s) { return s.ended || s.done.get() != nullptr; },
                              [&](State& s) {
                                done = kj::mv(s.done);
                                size = s.size;
                                return s.ended;
                              });
      if (ended) return;
      pulse.beat();
      done->fulfill(transferNow(size));
    }
  }

  void waitForStart() const {
    state.when([](const State& s) { return s.started; }, [](State&) {});
  }

  void request(size_t size, kj::Own<Fulfiller> done) const {
    auto lock = state.lockExclusive();
    KJ_REQUIRE(lock->done.get() == nullptr, "one transfer at a time");
    lock->size = size;
    lock->done = kj::mv(done);
  }

  void end() const { state.lockExclusive()->ended = true; }

  const int fd;
  const Direction direction;
  mutable virtio::Pulse pulse;  // the worker's
  // Belongs to the worker from request() to the fulfilment, otherwise to the owner.
  mutable kj::Array<kj::byte> buffer;

 private:
  struct State {
    bool started = false;
    bool ended = false;
    size_t size = 0;
    kj::Own<Fulfiller> done;  // set while a transfer is asked for
  };

  ssize_t transferNow(size_t size) const {
    for (;; pulse.beat()) {
      ssize_t result = direction == Direction::READ ? ::read(fd, buffer.begin(), size)
                                                    : ::write(fd, buffer.begin(), size);
      if (result >= 0) return result;
      if (errno != EINTR) return -errno;
    }
  }

  kj::MutexGuarded<State> state;
};

FdThread::FdThread(int fd, Direction direction, uint32_t number, kj::Function<void()> confine)
    : number(number), shared(kj::atomicRefcounted<Shared>(fd, direction)) {
  auto body = [worker = kj::atomicAddRef(*shared), name = kj::str("port-io", number),
               confine = kj::mv(confine)]() mutable {
    KJ_SYSCALL(prctl(PR_SET_NAME, name.cStr()));
    confine();
    worker->run();
  };
  kj::Thread(kj::mv(body)).detach();
  // A thread's first steps make system calls that a serving filter need not allow.
  shared->waitForStart();
}

FdThread::~FdThread() noexcept(false) {
  shared->end();
}

void FdThread::showIn(const virtio::VitalSigns& signs) {
  shared->pulse.showIn(signs.word(1 + number));
}

kj::ArrayPtr<kj::byte> FdThread::buffer() {
  return shared->buffer;
}

kj::Promise<ssize_t> FdThread::transfer(size_t size) {
  KJ_REQUIRE(size <= BUFFER_SIZE);
  auto paf = kj::newPromiseAndCrossThreadFulfiller<ssize_t>();
  shared->request(size, kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

}  // namespace troupe::console
