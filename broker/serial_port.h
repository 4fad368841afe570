#pragma once

#include <kj/async-unix.h>
#include <kj/io.h>

#include <mutex>

#include "broker/bus.h"
#include "broker/interrupts.h"
#include "broker/uart.h"

namespace troupe::broker {

// COM1: a 16550A whose bytes go through one stream socket.
//
// The vCPU that sends a byte passes it on itself; only when the socket takes no more does the guest
// find the transmitter busy, until the main loop has seen the socket drain. Bytes for the guest
// wait in the socket while the FIFO is full. A peer that is gone swallows what is sent.
class SerialPort final: public BusDevice {
 public:
  // `socket`: borrowed; none: what the guest sends is dropped. Main thread.
  SerialPort(Interrupts& interrupts, Mailbox& mailbox, kj::UnixEventPort& events,
             kj::Maybe<int> socket);
  ~SerialPort() noexcept(false);

  // The registers as after power-on. What the guest sent still goes out. Main thread.
  void reset();

  // Resolves when nothing waits for the socket of what the guest has sent. For one at a time. Main
  // thread.
  kj::Promise<void> whenPassedOn();

  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override;
  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override;

 private:
  struct State {
    Uart uart;
    bool line = false;          // level last given to the interrupt controller
    bool sendBlocked = false;   // the main loop waits for the socket to drain
    bool receiveWaits = false;  // the main loop stopped reading for want of room
  };

  // All with the mutex held.
  void updateLine();
  void resumeReceiving();
  bool send();
  kj::Promise<void> sendLoop();
  kj::Promise<void> receiveLoop();
  bool receive();

  Interrupts& interrupts;
  Mailbox& mailbox;
  kj::Maybe<int> socket;
  kj::Maybe<kj::Own<kj::UnixEventPort::FdObserver>> observer;
  std::mutex mutex;  // a mutex the thread sanitizer knows, unlike KJ's
  State state;
  kj::Promise<void> sending = nullptr;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> awaitsPassedOn;  // the main thread's
  kj::Promise<void> receiving = nullptr;
};

}  // namespace troupe::broker
