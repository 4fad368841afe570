#include "vmm/hosting.h"

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <string.h>

namespace troupe {

namespace {

constexpr int STOPPING_SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};

bool isIgnored(int number) {
  struct sigaction action;
  KJ_SYSCALL(sigaction(number, nullptr, &action));
  return action.sa_handler == SIG_IGN;
}

// Signals that were ignored at our start stay so: nohup means it.
void captureSignals() {
  kj::UnixEventPort::captureChildExit();
  for (int number : STOPPING_SIGNALS) {
    if (!isIgnored(number)) kj::UnixEventPort::captureSignal(number);
  }
  // A disk that may not grow (`ulimit -f`) is an error, and no reason to die.
  KJ_REQUIRE(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
  kj::UnixEventPort::captureSignal(SIGWINCH);
  kj::UnixEventPort::captureSignal(SIGCONT);
}

// Turns signals into calls of the VM for as long as it exists.
class SignalWatch {
 public:
  SignalWatch(kj::UnixEventPort& events, RunningVm& vm) : events(events), vm(vm) {
    for (int number : STOPPING_SIGNALS) {
      if (isIgnored(number)) continue;
      watches.add(events.onSignal(number)
                      .then([this](siginfo_t info) {
                        this->vm.stop(kj::str("stopped by SIG", sigabbrev_np(info.si_signo)));
                      })
                      .eagerlyEvaluate(nullptr));
    }
    watches.add(onEach(SIGWINCH, &RunningVm::terminalResized).eagerlyEvaluate(nullptr));
    watches.add(onEach(SIGCONT, &RunningVm::terminalResumed).eagerlyEvaluate(nullptr));
  }

 private:
  kj::Promise<void> onEach(int number, void (RunningVm::*action)()) {
    return events.onSignal(number).then([this, number, action](siginfo_t) {
      (vm.*action)();
      return onEach(number, action);
    });
  }

  kj::UnixEventPort& events;
  RunningVm& vm;
  kj::Vector<kj::Promise<void>> watches;
};

}  // namespace

VmEnd hostVm(VmConfig::Reader config, kj::Function<void(RunningVm&)> begun,
             kj::Maybe<const sandbox::WatchRequest&> watch) {
  captureSignals();
  auto io = kj::setupAsyncIo();
  auto vm = startVm(io, config, watch);
  SignalWatch signals(io.unixEventPort, *vm);
  auto telling = vm->onRunning().then([&]() { begun(*vm); }).eagerlyEvaluate(nullptr);
  return vm->onEnd().wait(io.waitScope);
}

}  // namespace troupe
