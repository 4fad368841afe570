#include "vmm/cli/terminal.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace troupe {

namespace {

constexpr int STDIO_COUNT = 3;
constexpr int FATAL_SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL,  SIGFPE, SIGABRT,
                                 SIGQUIT, SIGINT, SIGTERM, SIGHUP};

// Process-wide like the terminal itself: the handler of a fatal signal has nothing else to reach.
struct Saved {
  volatile sig_atomic_t active;
  bool isTerminal;
  termios modes;
  int flags[STDIO_COUNT];
} saved;

// Async-signal-safe.
void restore() {
  if (!saved.active) return;
  saved.active = 0;
  for (int fd = 0; fd < STDIO_COUNT; fd++) {
    if (saved.flags[fd] >= 0) fcntl(fd, F_SETFL, saved.flags[fd]);
  }
  if (!saved.isTerminal) return;
  // In the background the kernel would stop us for this; the user wants the terminal back.
  sigset_t block;
  sigset_t before;
  sigemptyset(&block);
  sigaddset(&block, SIGTTOU);
  sigprocmask(SIG_BLOCK, &block, &before);
  tcsetattr(STDIN_FILENO, TCSANOW, &saved.modes);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

void onFatalSignal(int number) {
  restore();
  signal(number, SIG_DFL);
  raise(number);
}

void enterRaw() {
  termios raw = saved.modes;
  raw.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  raw.c_lflag &= ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

bool inForeground() {
  return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

}  // namespace

kj::Maybe<TerminalSize> terminalSize() {
  winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) {
    return nullptr;
  }
  if (size.ws_col == 0 || size.ws_row == 0) return nullptr;
  return TerminalSize{size.ws_col, size.ws_row};
}

GuestTerminal::GuestTerminal() {
  KJ_REQUIRE(!saved.active, "the terminal has been handed over already");
  for (int fd = 0; fd < STDIO_COUNT; fd++)
    saved.flags[fd] = fcntl(fd, F_GETFL);
  saved.isTerminal = tcgetattr(STDIN_FILENO, &saved.modes) == 0;
  saved.active = 1;
  if (!saved.isTerminal) return;
  for (int number : FATAL_SIGNALS) {
    struct sigaction action = {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_DFL) continue;  // somebody waits for it, or it ends nothing
    action = {};
    action.sa_handler = &onFatalSignal;
    action.sa_flags = SA_RESETHAND;
    sigaction(number, &action, nullptr);
  }
  // A background job leaves the terminal as it is until it is brought forward.
  if (inForeground()) enterRaw();
}

GuestTerminal::~GuestTerminal() noexcept(false) {
  restore();
}

void GuestTerminal::resume() {
  if (saved.active && saved.isTerminal && inForeground()) enterRaw();
}

}  // namespace troupe
