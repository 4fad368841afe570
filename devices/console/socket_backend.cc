#include "devices/console/socket_backend.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/console/polled_fd.h"

namespace troupe::console {

namespace {

// Between tries of accept() when the host is out of something.
constexpr kj::Duration ACCEPT_RETRY_WAIT = 1 * kj::SECONDS;

int nonBlocking(int fd) {
  makeNonBlocking(fd);
  return fd;
}

void ended(kj::Exception&& e) {
  KJ_LOG(ERROR, "console socket ended", e);
}

}  // namespace

// One connection: exists from accept() to the end of its run().
class SocketBackend::Client {
 public:
  Client(SocketBackend& backend, kj::AutoCloseFd connection)
      : backend(backend),
        connection(kj::mv(connection)),
        fd(backend.events, this->connection),
        reader(kj::heap<OutputLog::Reader>(backend.line.output, backend.replay == Replay::ON
                                                                    ? OutputLog::From::OLDEST
                                                                    : OutputLog::From::NOW)) {
    backend.clients.add(this);
    backend.clientsChanged();
  }

  ~Client() noexcept(false) {
    auto& clients = backend.clients;
    size_t kept = 0;
    for (auto client : clients) {
      if (client != this) clients[kept++] = client;
    }
    clients.truncate(kept);
    backend.clientsChanged();
  }

  // Resolves when the other side is gone and what it sent before is read.
  kj::Promise<void> run() {
    auto gone = fd.whenHungUp();
    auto input = pumpInput().then([gone = kj::mv(gone)]() mutable { return kj::mv(gone); });
    return input.exclusiveJoin(pumpOutput());
  }

  bool sends = true;  // until it shuts down its sending side

 private:
  kj::Promise<void> pumpOutput() {
    return reader->whenMore().then([this]() -> kj::Promise<void> {
      ssize_t result = fd.write(reader->next());
      if (result == -EAGAIN) return fd.whenWritable().then([this]() { return pumpOutput(); });
      if (result < 0) {
        reader = nullptr;  // it reads no more, though it may still have sent something
        return kj::NEVER_DONE;
      }
      reader->took(result);
      return pumpOutput();
    });
  }

  kj::Promise<void> pumpInput() {
    auto& input = backend.line.input;
    bool writes = backend.isWriter(*this);
    if (writes && input.room() == 0) {
      // Or until somebody else writes: what this one has sent and nobody took is thrown away then,
      // and so one that has left without being heard does not stay for good.
      return input.whenRoom().exclusiveJoin(backend.writerChanged.wait()).then([this]() {
        return pumpInput();
      });
    }
    kj::byte bytes[InputQueue::CAPACITY];
    ssize_t result = fd.read(kj::arrayPtr(bytes, writes ? input.room() : sizeof(bytes)));
    if (result == 0 || (result < 0 && result != -EAGAIN)) {
      sends = false;  // it may read on
      backend.writerChanged.raise();
      return kj::READY_NOW;
    }
    if (result > 0 && writes) input.append(kj::arrayPtr(bytes, result));
    return fd.whenReadable().then([this]() { return pumpInput(); });
  }

  SocketBackend& backend;
  kj::AutoCloseFd connection;
  PolledFd fd;
  kj::Own<OutputLog::Reader> reader;
};

SocketBackend::SocketBackend(kj::UnixEventPort& events, Line& line, int listening, Replay replay)
    : events(events),
      line(line),
      listening(nonBlocking(listening)),
      replay(replay),
      observer(events, listening, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      serving(*this),
      accepting(
          line.guest.whenOpen().then([this]() { return acceptLoop(); }).eagerlyEvaluate(ended)) {
  clientsChanged();
}

SocketBackend::~SocketBackend() noexcept(false) {}

void SocketBackend::taskFailed(kj::Exception&& exception) {
  ended(kj::mv(exception));
}

kj::Promise<void> SocketBackend::acceptLoop() {
  int fd = accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) {
    accepted(kj::AutoCloseFd(fd));
    return nextTurn(events.getTimer()).then([this]() { return acceptLoop(); });
  }
  auto next = errno == EAGAIN ? observer.whenBecomesReadable()
              : errno == EINTR || errno == ECONNABORTED
                  ? nextTurn(events.getTimer())
                  : events.getTimer().afterDelay(ACCEPT_RETRY_WAIT);
  return next.then([this]() { return acceptLoop(); });
}

void SocketBackend::accepted(kj::AutoCloseFd connection) {
  if (clients.size() < MAX_CLIENTS) {
    auto client = kj::heap<Client>(*this, kj::mv(connection));
    auto run = client->run();
    serving.add(run.attach(kj::mv(client)));
    return;
  }
  auto refusal = kj::str("TRP-con-002: this console already has ", MAX_CLIENTS,
                         " clients, as many as it takes; close one of them\r\n");
  ssize_t written = ::write(connection, refusal.begin(), refusal.size());
  (void)written;  // a courtesy: its buffer is empty, and it may be gone
}

void SocketBackend::clientsChanged() {
  line.host.set(replay == Replay::ON || clients.size() > 0);
  writerChanged.raise();
}

bool SocketBackend::isWriter(const Client& client) const {
  for (size_t i = clients.size(); i > 0; --i) {
    if (clients[i - 1]->sends) return clients[i - 1] == &client;
  }
  return false;
}

}  // namespace troupe::console
