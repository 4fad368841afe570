#pragma once

#include <kj/common.h>
#include <termios.h>

#include <cstdint>

namespace troupe {

struct TerminalSize {
  uint16_t columns;
  uint16_t rows;
};

// The size of the terminal on standard output or input; none where there is no terminal.
kj::Maybe<TerminalSize> terminalSize();

// Hands the user's terminal to a guest: keys go through one by one, unechoed and unchanged, Ctrl-C
// included. Output keeps the terminal's own line ends, so messages of `troupe` stay readable.
//
// Destruction restores the terminal and the open-file flags of stdin, stdout and stderr, which a
// jailed console may have made non-blocking; so does a signal that ends this process. At most one
// object at a time. Nothing happens where stdin is no terminal.
class GuestTerminal {
 public:
  GuestTerminal();
  ~GuestTerminal() noexcept(false);
  KJ_DISALLOW_COPY(GuestTerminal);

  // Takes the terminal again after the shell had it (SIGCONT).
  void resume();
};

}  // namespace troupe
