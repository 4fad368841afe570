#pragma once

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <mutex>

#include "broker/bus.h"

namespace troupe::broker {

// The Mailbox of the thread whose event loop `events` is. Actions run on it in the order of post().
class LoopMailbox final: public Mailbox {
 public:
  // `eventFd`: a non-blocking eventfd nobody else reads.
  LoopMailbox(kj::UnixEventPort& events, kj::AutoCloseFd eventFd);

  void post(kj::Function<void()> action) override;

  // Runs actions for as long as the promise is held. It only ends by an exception: the one an
  // action threw.
  kj::Promise<void> serve();

 private:
  void runAll();

  kj::AutoCloseFd eventFd;
  kj::UnixEventPort::FdObserver observer;
  std::mutex mutex;  // a mutex the thread sanitizer knows, unlike KJ's
  kj::Vector<kj::Function<void()>> queue;
};

}  // namespace troupe::broker
