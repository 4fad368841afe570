#include "devices/console/stdio_backend.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <unistd.h>

#include "devices/console/complaint.h"

namespace troupe::console {

namespace {

// After one detach key: how long another may take to follow it.
constexpr kj::Duration KEY_WAIT = 300 * kj::MILLISECONDS;

// Between tries of something that the user may put right: a full disk, a shell's job control.
constexpr kj::Duration RETRY_WAIT = 1 * kj::SECONDS;

// For a write that may block for ever: what of it is not noted then is written once more.
constexpr kj::Duration REST_WAIT = 100 * kj::MILLISECONDS;

// Resolves when an fd that somebody else has made non-blocking is ready again.
kj::Promise<void> whenReady(kj::UnixEventPort& events, int fd, FdThread::Direction direction) {
  using Observer = kj::UnixEventPort::FdObserver;
  bool reads = direction == FdThread::Direction::READ;
  auto observer =
      kj::heap<Observer>(events, fd, reads ? Observer::OBSERVE_READ : Observer::OBSERVE_WRITE);
  auto ready = reads ? observer->whenBecomesReadable() : observer->whenBecomesWritable();
  return ready.attach(kj::mv(observer));
}

}  // namespace

class StdioBackend::Output {
 public:
  Output(kj::UnixEventPort& events, Line& line, int fd, Host& host, uint32_t number)
      : events(events),
        log(line.output),
        fd(fd),
        terminal(isatty(fd)),
        thread(fd, FdThread::Direction::WRITE, 1 + number,
               [&host]() { host.confineThread("output"); }),
        task(nullptr) {
    auto begun =
        line.ours.isOpen() ? begin() : line.ours.whenOpen().then([this]() { return begin(); });
    task =
        begun.eagerlyEvaluate([](kj::Exception&& e) { KJ_LOG(ERROR, "console output ended", e); });
  }

  void showIn(const virtio::VitalSigns& signs) { thread.showIn(signs); }

  kj::Promise<void> rest() {
    rests = true;
    if (!isWriting) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    rested = kj::mv(paf.fulfiller);
    return paf.promise.exclusiveJoin(events.getTimer().afterDelay(REST_WAIT));
  }

 private:
  kj::Promise<void> begin() {
    reader = kj::heap<OutputLog::Reader>(log, OutputLog::From::WHERE_IT_WAS);
    return pump();
  }

  kj::Promise<void> pump() {
    return reader->whenMore().then([this]() -> kj::Promise<void> {
      if (rests) return kj::NEVER_DONE;
      auto bytes = reader->next();
      size_t size = kj::min(bytes.size(), FdThread::BUFFER_SIZE);
      memcpy(thread.buffer().begin(), bytes.begin(), size);
      isWriting = true;
      return thread.transfer(size).then([this](ssize_t result) {
        isWriting = false;
        return written(result);
      });
    });
  }

  kj::Promise<void> written(ssize_t result) {
    if (result >= 0) {
      reader->took(result);
      complained = false;
      KJ_IF_MAYBE (waiting, rested) {
        (*waiting)->fulfill();
      }
      return pump();
    }
    int error = -result;
    if (error == EAGAIN) {
      return whenReady(events, fd, FdThread::Direction::WRITE).then([this]() { return pump(); });
    }
    bool hungUp = error == EIO && terminal;
    if (error == EPIPE || error == EBADF || error == EINVAL || hungUp) {
      // Nobody will read it any more. Without a reader the log waits for nobody.
      reader = nullptr;
      return kj::READY_NOW;
    }
    if (!complained) {
      complained = true;
      complain(kj::str("TRP-con-001: console output cannot be written: ", errnoText(error),
                       ". It is tried again every second; the last MiB is kept."));
    }
    return events.getTimer().afterDelay(RETRY_WAIT).then([this]() { return pump(); });
  }

  kj::UnixEventPort& events;
  OutputLog& log;
  int fd;
  bool terminal;
  bool complained = false;  // since the last byte that went through
  bool isWriting = false;
  bool rests = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> rested;
  kj::Own<OutputLog::Reader> reader;
  FdThread thread;
  kj::Promise<void> task;
};

class StdioBackend::Input {
 public:
  Input(kj::UnixEventPort& events, Line& line, int fd, Host& host)
      : events(events),
        queue(line.input),
        fd(fd),
        terminal(isatty(fd)),
        host(host),
        thread(fd, FdThread::Direction::READ, 0, [&host]() { host.confineThread("input"); }),
        task(line.ours.whenOpen()
                 .then([this]() { return pump(); })
                 .eagerlyEvaluate(
                     [](kj::Exception&& e) { KJ_LOG(ERROR, "console input ended", e); })) {}

  void showIn(const virtio::VitalSigns& signs) { thread.showIn(signs); }

 private:
  kj::Promise<void> pump() {
    if (terminal) {
      // Read on without room, so that the detach key works on a guest that takes nothing. What does
      // not fit is lost, as it is on a terminal whose reader sleeps.
      return transfer(FdThread::BUFFER_SIZE);
    }
    return queue.whenRoom().then([this]() { return transfer(queue.room()); });
  }

  kj::Promise<void> transfer(size_t size) {
    return thread.transfer(kj::min(size, FdThread::BUFFER_SIZE)).then([this](ssize_t result) {
      return read(result);
    });
  }

  kj::Promise<void> read(ssize_t result) {
    if (result > 0) {
      take(thread.buffer().slice(0, result));
      return pump();
    }
    if (result == -EAGAIN) {
      return whenReady(events, fd, FdThread::Direction::READ).then([this]() { return pump(); });
    }
    if (result == -EIO && terminal) {
      // The shell has put this job into the background: its terminal answers again in the
      // foreground.
      return events.getTimer().afterDelay(RETRY_WAIT).then([this]() { return pump(); });
    }
    return kj::READY_NOW;  // the end, or nothing that could ever be read
  }

  void take(kj::ArrayPtr<kj::byte> typed) {
    if (!terminal) {
      queue.append(typed);
      return;
    }
    auto result = key.filter(typed);
    queue.append(typed.slice(0, result.kept));
    keyWait = nullptr;
    if (result.detach) {
      host.detach();
    } else if (key.pending()) {
      keyWait = events.getTimer()
                    .afterDelay(KEY_WAIT)
                    .then([this]() { host.detach(); })
                    .eagerlyEvaluate(nullptr);
    }
  }

  kj::UnixEventPort& events;
  InputQueue& queue;
  int fd;
  bool terminal;
  Host& host;
  DetachKey key;
  kj::Promise<void> keyWait = nullptr;
  FdThread thread;
  kj::Promise<void> task;
};

StdioBackend::StdioBackend(kj::UnixEventPort& events, Line& line, kj::Maybe<int> in, int out,
                           Host& host, uint32_t number)
    : output(kj::heap<Output>(events, line, out, host, number)) {
  KJ_IF_MAYBE (fd, in) {
    input = kj::heap<Input>(events, line, *fd, host);
  }
}

StdioBackend::~StdioBackend() noexcept(false) {}

// Input that is read now waits for whoever goes on: where the driver's would be.
kj::Promise<void> StdioBackend::rest() {
  return output->rest();
}

void StdioBackend::showIn(const virtio::VitalSigns& signs) {
  output->showIn(signs);
  KJ_IF_MAYBE (one, input) {
    (*one)->showIn(signs);
  }
}

}  // namespace troupe::console
