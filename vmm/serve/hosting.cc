#include "vmm/serve/hosting.h"

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>

#include "sandbox/fair_loop.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/signals.h"
#include "vmm/serve/environment.h"

namespace troupe {

namespace {

using realm::Instance;

// Tells a VM, if it is there, what becomes of the user's terminal.
class TerminalSignals {
 public:
  TerminalSignals(kj::UnixEventPort& events, Instance& guest) : events(events), guest(guest) {
    watches.add(onEach(SIGWINCH, &RunningVm::terminalResized).eagerlyEvaluate(nullptr));
    watches.add(onEach(SIGCONT, &RunningVm::terminalResumed).eagerlyEvaluate(nullptr));
  }

 private:
  kj::Promise<void> onEach(int number, void (RunningVm::*action)()) {
    return events.onSignal(number).then([this, number, action](siginfo_t) {
      KJ_IF_MAYBE (vm, guest.vm()) {
        (vm->*action)();
      }
      return onEach(number, action);
    });
  }

  kj::UnixEventPort& events;
  Instance& guest;
  kj::Vector<kj::Promise<void>> watches;
};

}  // namespace

VmEnd hostVm(VmConfig::Reader config, Begin begin, kj::Function<void(RunningVm&)> begun,
             kj::Maybe<const sandbox::WatchRequest&> watch) {
  captureSignals();
  auto io = sandbox::setupFairIo();
  auto order = realm::orderOf(config);
  order.begin = begin;
  Stage::Choices choices;
  choices.jail = parseOnOff("--jail", config.getJail()) ? sandbox::Jail::ON : sandbox::Jail::OFF;
  if (config.getProfileDir().size() > 0) choices.profileDir = config.getProfileDir();
  choices.watch = watch;
  Stage stage(io, choices);

  realm::Environments realms(io, stage);
  auto& own = realms.create("", realm::Environment::Kept::NO, {});
  realm::Environment::Hold hold(own);
  auto guest = own.launch("", kj::mv(order));

  StopSignals stops(io.unixEventPort,
                    [&](kj::StringPtr name) { guest->stop(kj::str("stopped by ", name)); });
  TerminalSignals terminal(io.unixEventPort, *guest);
  auto telling = guest->onRunning()
                     .then([&]() {
                       KJ_IF_MAYBE (vm, guest->vm()) {
                         begun(*vm);
                       }
                     })
                     .eagerlyEvaluate([](kj::Exception&&) {});  // its end says so
  guest->onEnd().wait(io.waitScope);
  auto& outcome = KJ_ASSERT_NONNULL(guest->outcome());
  return {outcome.exit, kj::str(outcome.message)};
}

}  // namespace troupe
