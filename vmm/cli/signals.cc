#include "vmm/cli/signals.h"

#include <kj/debug.h>
#include <signal.h>
#include <string.h>

namespace troupe {

namespace {

constexpr int STOPPING[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

bool isIgnored(int number) {
  struct sigaction action;
  KJ_SYSCALL(sigaction(number, nullptr, &action));
  return action.sa_handler == SIG_IGN;
}

}  // namespace

void captureSignals() {
  kj::UnixEventPort::captureChildExit();
  for (int number : STOPPING) {
    if (!isIgnored(number)) kj::UnixEventPort::captureSignal(number);
  }
  kj::UnixEventPort::captureSignal(SIGWINCH);
  kj::UnixEventPort::captureSignal(SIGCONT);
}

StopSignals::StopSignals(kj::UnixEventPort& events, kj::Function<void(kj::StringPtr)> stopParam)
    : stop(kj::mv(stopParam)) {
  for (int number : STOPPING) {
    if (isIgnored(number)) continue;
    watches.add(
        events.onSignal(number)
            .then([this](siginfo_t info) { stop(kj::str("SIG", sigabbrev_np(info.si_signo))); })
            .eagerlyEvaluate(nullptr));
  }
}

}  // namespace troupe
