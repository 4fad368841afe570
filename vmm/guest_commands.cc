// What a user does to the guest of a running VM: pauses it, presses its buttons, stops it.

#include <kj/async-io.h>
#include <kj/debug.h>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/control_client.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"
#include "vmm/vm_words.h"

namespace troupe {

namespace {

constexpr uint64_t DEFAULT_STOP_SECONDS = 30;
constexpr uint64_t MOST_STOP_SECONDS = 3600;  // a client's connection lasts no longer
// Beyond the wait for the guest: for its processes to end.
constexpr kj::Duration LEAVING = 5 * kj::SECONDS;
// A reset waits for every device; the slowest may take ten seconds.
constexpr kj::Duration RESET_PATIENCE = 20 * kj::SECONDS;

// `call` starts one call on the VM. What the VM answers in its own words is passed on. `patience`
// is read once the options are.
template <typename Call>
ExitCode tellVm(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words, kj::StringPtr failure,
                const kj::Duration& patience, Call&& call) {
  KJ_IF_MAYBE (asked, parseVmWords(line, words, false)) {
    auto io = kj::setupAsyncIo();
    ControlClient client(io, asked->name);
    auto told = call(client.vm()).catch_([&](kj::Exception&& exception) {
      kj::throwFatalException(wrapActorError(exception, codes::INTERNAL,
                                             kj::str("VM ", quote(asked->name), " ", failure))
                                  .toException());
    });
    client.await(kj::mv(told), patience);
  }
  return ExitCode::POWERED_OFF;
}

uint64_t parseStopSeconds(kj::StringPtr text) {
  KJ_IF_MAYBE (seconds, parseNumber(text, MOST_STOP_SECONDS)) {
    if (*seconds > 0) return *seconds;
  }
  UserError(
      codes::STOP_TIMEOUT,
      kj::str("--timeout ", quote(text), " is not how long to wait for the guest; expected 1 to ",
              MOST_STOP_SECONDS, " seconds (or --force, which does not wait)"))
      .raise();
}

}  // namespace

ExitCode pauseCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("pause", "Halts the CPUs of a running VM; `troupe resume` lets them go on.",
                   "VM");
  return tellVm(line, words, "is not paused", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.pauseRequest().send().ignoreResult(); });
}

ExitCode resumeCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("resume", "Lets the CPUs of a paused VM go on.", "VM");
  return tellVm(line, words, "is not resumed", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.resumeRequest().send().ignoreResult(); });
}

ExitCode resetCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line(
      "reset", "Starts the guest of a running VM anew without asking it, as a reset button does.",
      "VM");
  return tellVm(line, words, "is not reset", RESET_PATIENCE,
                [](Vm::Client vm) { return vm.resetRequest().send().ignoreResult(); });
}

ExitCode powerButtonCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("power-button", "Presses a VM's power button: its guest decides what follows.",
                   "VM");
  return tellVm(line, words, "has no button now", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.powerButtonRequest().send().ignoreResult(); });
}

ExitCode stopCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line(
      "stop",
      "Asks the guest of a running VM to power off, and ends the VM when it has not in "
      "time. Returns when the VM has ended.",
      "VM");
  bool force = false;
  uint64_t seconds = DEFAULT_STOP_SECONDS;
  line.add({"force", "", "end it at once, without asking the guest", false,
            [&](kj::StringPtr) { force = true; }});
  auto patience = seconds * kj::SECONDS + LEAVING;
  line.add({"timeout", "SECONDS", "how long to wait for the guest, 1 to 3600; 30 unless given",
            false, [&](kj::StringPtr text) {
              seconds = parseStopSeconds(text);
              patience = seconds * kj::SECONDS + LEAVING;
            }});
  return tellVm(line, words, "is not stopped", patience, [&](Vm::Client vm) {
    auto request = vm.stopRequest();
    request.setForce(force);
    request.setTimeoutMs(uint32_t(seconds * 1000));
    // The VM is gone before it can answer.
    return request.send().ignoreResult().catch_([](kj::Exception&& exception) {
      if (exception.getType() != kj::Exception::Type::DISCONNECTED) {
        kj::throwFatalException(kj::mv(exception));
      }
    });
  });
}

}  // namespace troupe
