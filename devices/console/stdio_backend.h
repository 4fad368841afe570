#pragma once

#include <kj/async-unix.h>
#include <kj/string.h>

#include "devices/console/backend.h"
#include "devices/console/detach_key.h"
#include "devices/console/fd_thread.h"

namespace troupe::console {

// Standard input and output, or a file that only takes output: fds that are read and written with
// blocking calls, whatever they are: terminal, pipe, socket, regular file, /dev/null.
//
// The detach key counts only on a terminal; a file or a pipe may hold any byte. The end of the
// input ends input alone. A reader of the output that has gone (EPIPE) ends output alone.
class StdioBackend final: public Backend {
 public:
  // What the process that has a StdioBackend does for it.
  class Host {
   public:
    // The user of a terminal has typed the detach key.
    virtual void detach() = 0;

    // Called on the threads "input" and "output" before they do anything else.
    virtual void confineThread(kj::StringPtr name) = 0;
  };

  // The fds and `host` are borrowed. `number`: of the output among the process's.
  StdioBackend(kj::UnixEventPort& events, Line& line, kj::Maybe<int> in, int out, Host& host,
               uint32_t number = 0);
  ~StdioBackend() noexcept(false);

  kj::Promise<void> rest() override;
  void showIn(const virtio::VitalSigns& signs) override;

 private:
  class Input;
  class Output;
  kj::Own<Output> output;
  kj::Maybe<kj::Own<Input>> input;
};

}  // namespace troupe::console
