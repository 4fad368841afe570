#include "devices/console/pty_backend.h"

#include <errno.h>
#include <kj/debug.h>

namespace troupe::console {

namespace {

int nonBlocking(int fd) {
  makeNonBlocking(fd);
  return fd;
}

void ended(kj::Exception&& e) {
  KJ_LOG(ERROR, "pseudo-terminal ended", e);
}

}  // namespace

PtyBackend::PtyBackend(kj::UnixEventPort& events, Line& line, int fd)
    : line(line), master(events, nonBlocking(fd)), output(nullptr), input(nullptr) {
  auto begun =
      line.ours.isOpen() ? begin() : line.ours.whenOpen().then([this]() { return begin(); });
  output = begun.eagerlyEvaluate(ended);
  input = line.ours.whenOpen().then([this]() { return pumpInput(); }).eagerlyEvaluate(ended);
}

kj::Promise<void> PtyBackend::begin() {
  reader.emplace(line.output, OutputLog::From::WHERE_IT_WAS);
  return pumpOutput();
}

kj::Promise<void> PtyBackend::rest() {
  output = nullptr;
  input = nullptr;
  return kj::READY_NOW;
}

kj::Promise<void> PtyBackend::pumpOutput() {
  auto& from = KJ_ASSERT_NONNULL(reader);
  return from.whenMore().then([this, &from]() -> kj::Promise<void> {
    ssize_t result = master.write(from.next());
    // Full, or (EIO) closed on the other side: either way the terminal tells when it takes more.
    if (result <= 0) return master.whenWritable().then([this]() { return pumpOutput(); });
    from.took(result);
    return pumpOutput();
  });
}

kj::Promise<void> PtyBackend::pumpInput() {
  return line.input.whenRoom().then([this]() -> kj::Promise<void> {
    kj::byte bytes[InputQueue::CAPACITY];
    ssize_t result = master.read(kj::arrayPtr(bytes, line.input.room()));
    if (result > 0) line.input.append(kj::arrayPtr(bytes, result));
    // EIO: nobody has the other side open. A read now and then would wake an idle process for
    // nothing; the first byte that somebody types there is an event.
    bool closed = result <= 0 && result != -EAGAIN;
    auto next = closed ? master.whenReadableAgain() : master.whenReadable();
    return next.then([this]() { return pumpInput(); });
  });
}

}  // namespace troupe::console
