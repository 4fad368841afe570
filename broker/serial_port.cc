#include "broker/serial_port.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include <cerrno>

#include "broker/memory_map.h"

namespace troupe::broker {
namespace {

using FdObserver = kj::UnixEventPort::FdObserver;

void report(kj::Exception&& exception) {
  KJ_LOG(ERROR, "serial port", exception);
}

}  // namespace

SerialPort::SerialPort(Interrupts& interrupts, Mailbox& mailbox, kj::UnixEventPort& events,
                       kj::Maybe<int> socketFd)
    : interrupts(interrupts), mailbox(mailbox), socket(socketFd) {
  KJ_IF_MAYBE (fd, socket) {
    observer = kj::heap<FdObserver>(events, *fd, FdObserver::OBSERVE_READ_WRITE);
    receiving = receiveLoop().eagerlyEvaluate(report);
  }
}

SerialPort::~SerialPort() noexcept(false) = default;

void SerialPort::reset() {
  std::lock_guard<std::mutex> lock(mutex);
  state.uart.reset();
  updateLine();
  resumeReceiving();
}

kj::Promise<void> SerialPort::whenPassedOn() {
  std::lock_guard<std::mutex> lock(mutex);
  if (!state.sendBlocked) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  awaitsPassedOn = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void SerialPort::busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) {
  std::lock_guard<std::mutex> lock(mutex);
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = state.uart.read(offset + i);
  updateLine();
  resumeReceiving();
}

void SerialPort::busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  std::lock_guard<std::mutex> lock(mutex);
  for (size_t i = 0; i < data.size(); ++i)
    state.uart.write(offset + i, data[i]);
  // The pin is wired for rising edges: it has to fall between two bytes that each end in one.
  updateLine();
  resumeReceiving();  // the FIFO may have been cleared
  if (state.uart.sent().size() == 0 || state.sendBlocked) return;
  if (!send()) {
    state.sendBlocked = true;
    mailbox.post([this]() { sending = sendLoop().eagerlyEvaluate(report); });
  }
  updateLine();
}

void SerialPort::updateLine() {
  bool level = state.uart.interrupting();
  if (level == state.line) return;
  state.line = level;
  interrupts.setLine(SERIAL_GSI, level);
}

// Lets the main loop read on once the guest has made room.
void SerialPort::resumeReceiving() {
  if (!state.receiveWaits || state.uart.room() == 0) return;
  state.receiveWaits = false;
  mailbox.post([this]() { receiving = receiveLoop().eagerlyEvaluate(report); });
}

// Passes on what the guest sent. False when the socket takes no more for now.
bool SerialPort::send() {
  auto& uart = state.uart;
  KJ_IF_MAYBE (fd, socket) {
    while (uart.sent().size() > 0) {
      auto bytes = uart.sent();
      ssize_t sent = ::send(*fd, bytes.begin(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        uart.dropSent(sent);
      } else if (errno == EAGAIN) {
        return false;
      } else if (errno != EINTR) {
        break;
      }
    }
  }
  uart.dropSent(uart.sent().size());
  return true;
}

kj::Promise<void> SerialPort::sendLoop() {
  // Arm before trying: the socket may have drained since the vCPU found it full.
  auto writable = KJ_ASSERT_NONNULL(observer)->whenBecomesWritable();
  std::lock_guard<std::mutex> lock(mutex);
  if (!send()) return writable.then([this]() { return sendLoop(); });
  state.sendBlocked = false;
  updateLine();
  KJ_IF_MAYBE (waiting, awaitsPassedOn) {
    (*waiting)->fulfill();
    awaitsPassedOn = nullptr;
  }
  return kj::READY_NOW;
}

kj::Promise<void> SerialPort::receiveLoop() {
  auto readable = KJ_ASSERT_NONNULL(observer)->whenBecomesReadable();
  if (!receive()) return kj::READY_NOW;
  return readable.then([this]() { return receiveLoop(); });
}

// Takes what the socket holds and the FIFO has room for. True when more may come by itself; false
// when the guest must read first, or nothing will ever come again.
bool SerialPort::receive() {
  int fd = KJ_ASSERT_NONNULL(socket);
  std::lock_guard<std::mutex> lock(mutex);
  for (;;) {
    uint8_t bytes[Uart::FIFO_SIZE];
    size_t room = state.uart.room();
    if (room == 0) {
      state.receiveWaits = true;
      return false;
    }
    ssize_t got = ::recv(fd, bytes, room, MSG_DONTWAIT);
    if (got > 0) {
      state.uart.receive(kj::arrayPtr(bytes, got));
      updateLine();
    } else if (got < 0 && errno == EAGAIN) {
      return true;
    } else if (got == 0 || errno != EINTR) {
      return false;
    }
  }
}

}  // namespace troupe::broker
