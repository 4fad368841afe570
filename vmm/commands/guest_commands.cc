// What a user does to the guest of a running VM: pauses it, presses its buttons, stops it.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <unistd.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/control/control_client.h"
#include "vmm/files/run_folder.h"
#include "vmm/words/json_line.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t DEFAULT_STOP_SECONDS = 30;
constexpr uint64_t MOST_STOP_SECONDS = 3600;  // a client's connection lasts no longer
// Whoever waits for longer at a terminal is told for what.
constexpr kj::Duration SILENCE = 1 * kj::SECONDS;
// Beyond the wait for the guest: for its processes to end.
constexpr kj::Duration LEAVING = 5 * kj::SECONDS;
// A reset waits for every device; the slowest may take ten seconds.
constexpr kj::Duration RESET_PATIENCE = 20 * kj::SECONDS;

kj::Promise<void> explained(kj::Promise<void> told, kj::StringPtr vm, kj::StringPtr failure) {
  return told.catch_([vm, failure](kj::Exception&& exception) {
    kj::throwFatalException(
        passedOn(exception, codes::INTERNAL, kj::str("VM ", quote(vm), " ", failure)));
  });
}

// `call` starts one call on the VM. What the VM answers in its own words is passed on.
template <typename Call>
ExitCode tellVm(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words, kj::StringPtr done,
                kj::StringPtr failure, kj::Duration patience, Call&& call) {
  KJ_IF_MAYBE (asked, parseVmWords(line, words)) {
    auto io = kj::setupAsyncIo();
    ControlClient client(io, asked->name);
    client.await(explained(call(client.vm()), asked->name, failure), patience);
    if (asked->json) {
      printOut(kj::str(JsonLine().text("name", asked->name).text("done", done).render(), "\n"));
    }
  }
  return ExitCode::POWERED_OFF;
}

// How a VM ended, as its last event says.
kj::Promise<kj::String> untilEnded(EventReader::Client reader, kj::StringPtr vm) {
  auto request = reader.nextRequest();
  request.setWait(true);
  return request.send().then([reader, vm](auto&& response) mutable -> kj::Promise<kj::String> {
    for (auto event : response.getEvents()) {
      if (!event.isEnded()) continue;
      auto end = event.getEnded();
      return kj::str(JsonLine()
                         .text("name", vm)
                         .number("exitCode", uint64_t(end.getExitCode()))
                         .text("cause", escape(end.getCause(), 40))
                         .text("reason", escape(end.getMessage(), 4000))
                         .render(),
                     "\n");
    }
    KJ_REQUIRE(!response.getIsEnd(), "the events end without the end of the VM");
    return untilEnded(kj::mv(reader), vm);
  });
}

// A VM whose connection has gone still has its name for a moment: its last processes are reaped,
// its disks given back.
void awaitNameIsFree(kj::AsyncIoContext& io, kj::StringPtr vm) {
  constexpr auto STEP = 5 * kj::MILLISECONDS;
  for (auto waited = 0 * kj::SECONDS; waited < LEAVING; waited += STEP) {
    bool isThere = false;
    for (auto& name : livingVms())
      isThere = isThere || name == vm;
    if (!isThere) return;
    io.provider->getTimer().afterDelay(STEP).wait(io.waitScope);
  }
}

struct StopWords {
  bool force = false;
  uint64_t seconds = DEFAULT_STOP_SECONDS;
  bool waits = false;  // --timeout was given
};

ExitCode stopVm(const VmWords& asked, const StopWords& stop) {
  auto io = kj::setupAsyncIo();
  ControlClient client(io, asked.name);
  kj::Maybe<kj::Promise<kj::String>> end;
  if (asked.json) {
    // Before it is stopped, as there will be nobody to ask.
    auto events = client.vm().eventsRequest().send().then(
        [](auto&& response) { return EventReader::Client(response.getReader()); });
    end = untilEnded(client.await(kj::mv(events)), asked.name).eagerlyEvaluate(nullptr);
  }
  auto request = client.vm().stopRequest();
  request.setForce(stop.force);
  request.setTimeoutMs(uint32_t(stop.seconds * 1000));
  // It is gone before it can answer, and gone when its connection is.
  auto told = request.send().ignoreResult().then(
      [&]() { return client.onDisconnect(); },
      [](kj::Exception&& exception) -> kj::Promise<void> {
        if (exception.getType() != kj::Exception::Type::DISCONNECTED) {
          kj::throwFatalException(kj::mv(exception));
        }
        return kj::READY_NOW;
      });
  auto word = io.provider->getTimer()
                  .afterDelay(SILENCE)
                  .then([&]() {
                    if (stop.force || !isatty(STDERR_FILENO)) return;
                    printError(kj::str("troupe: the guest has ", stop.seconds,
                                       " s to power off; --force ends it at once\n"));
                  })
                  .eagerlyEvaluate(nullptr);
  auto patience = stop.seconds * kj::SECONDS + LEAVING;
  auto stopped = explained(kj::mv(told), asked.name, "is not stopped");
  KJ_IF_MAYBE (line, end) {
    auto both = stopped.then([&]() { return kj::mv(*line); });
    auto told = client.await(both.catch_([&](kj::Exception&& failure) -> kj::String {
      if (failure.getType() != kj::Exception::Type::DISCONNECTED) {
        kj::throwFatalException(kj::mv(failure));
      }
      // Killed, with all its processes, by somebody else.
      return kj::str(JsonLine().text("name", asked.name).null("exitCode").render(), "\n");
    }),
                             patience);
    awaitNameIsFree(io, asked.name);
    printOut(told);
  } else {
    client.await(kj::mv(stopped), patience);
    awaitNameIsFree(io, asked.name);
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
                   "VM", "troupe pause web");
  return tellVm(line, words, "pause", "is not paused", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.pauseRequest().send().ignoreResult(); });
}

ExitCode resumeCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("resume", "Lets the CPUs of a paused VM go on.", "VM", "troupe resume web");
  return tellVm(line, words, "resume", "is not resumed", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.resumeRequest().send().ignoreResult(); });
}

ExitCode resetCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line(
      "reset", "Starts the guest of a running VM anew without asking it, as a reset button does.",
      "VM", "troupe reset web");
  return tellVm(line, words, "reset", "is not reset", RESET_PATIENCE,
                [](Vm::Client vm) { return vm.resetRequest().send().ignoreResult(); });
}

ExitCode powerButtonCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("power-button", "Presses a VM's power button: its guest decides what follows.",
                   "VM", "troupe power-button web");
  return tellVm(line, words, "power-button", "has no button now", ControlClient::PATIENCE,
                [](Vm::Client vm) { return vm.powerButtonRequest().send().ignoreResult(); });
}

ExitCode stopCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line(
      "stop",
      "Asks the guest of a running VM to power off, and ends the VM when it has not in "
      "time. Returns when the VM has ended.",
      "VM", "troupe stop web --timeout 60", "print how it ended, as JSON");
  StopWords stop;
  line.add({"force", "", "end it at once, without asking the guest", false,
            [&](kj::StringPtr) { stop.force = true; }});
  line.add({"timeout", "SECONDS", "how long to wait for the guest, 1 to 3600; 30 unless given",
            false, [&](kj::StringPtr text) {
              stop.seconds = parseStopSeconds(text);
              stop.waits = true;
            }});
  KJ_IF_MAYBE (asked, parseVmWords(line, words)) {
    if (stop.force && stop.waits) {
      UserError(
          codes::ARGUMENTS,
          kj::str("--force and --timeout exclude each other; who is forced is not waited for"))
          .raise();
    }
    return stopVm(*asked, stop);
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
