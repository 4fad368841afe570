#include "devices/console/uart_relay.h"

#include <errno.h>

namespace troupe::console {

namespace {

// As much as is taken from the socket before readers have their turn.
constexpr size_t PIECE = 16384;

int nonBlocking(int fd) {
  makeNonBlocking(fd);
  return fd;
}

}  // namespace

UartRelay::UartRelay(kj::UnixEventPort& events, Line& line, int socket)
    : line(line), socket(events, nonBlocking(socket)) {}

kj::Promise<void> UartRelay::run() {
  return pumpOutput().exclusiveJoin(pumpInput());
}

kj::Promise<void> UartRelay::pumpOutput() {
  return line.output.whenClear().then([this]() -> kj::Promise<void> {
    kj::byte bytes[PIECE];
    ssize_t result = socket.read(kj::arrayPtr(bytes, sizeof(bytes)));
    bool ended = result == 0 || (result < 0 && result != -EAGAIN);
    if (ended) return kj::READY_NOW;
    if (result > 0) {
      line.guest.set(true);
      line.output.write(kj::arrayPtr(bytes, result));
    }
    return socket.whenReadable().then([this]() { return pumpOutput(); });
  });
}

kj::Promise<void> UartRelay::pumpInput() {
  return line.input.whenInput().then([this]() -> kj::Promise<void> {
    ssize_t result = socket.write(line.input.waiting());
    if (result == -EAGAIN) return socket.whenWritable().then([this]() { return pumpInput(); });
    // The broker takes no more; whether it has gone altogether is for pumpOutput() to find.
    if (result < 0) return kj::NEVER_DONE;
    line.input.took(result);
    return pumpInput();
  });
}

}  // namespace troupe::console
