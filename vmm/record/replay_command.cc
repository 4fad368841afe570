#include "vmm/actors/programs.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/record/replay_run.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct ReplayWords {
  kj::StringPtr file;
  kj::Maybe<kj::StringPtr> binary;
  bool show = false;
  bool json = false;
};

kj::Maybe<ReplayWords> parse(kj::ArrayPtr<const kj::StringPtr> given) {
  ReplayWords words;
  CommandLine line("replay",
                   "Has a device process see again what one saw that was recorded (troupe run "
                   "--record), without a VM, and tells the first thing that it does otherwise.",
                   "FILE", "troupe replay root.rec");
  line.add({"binary", "FILE", "the executable of the devices to try, in place of troupe-devices",
            false, [&](kj::StringPtr word) { words.binary = word; }});
  line.add({"show", "", "print what was recorded, one line for each event, and replay nothing",
            false, [&](kj::StringPtr) { words.show = true; }});
  line.exits(
      "0 it did the same, 1 internal error, 2 the file is no recording, 4 the device's jail could "
      "not be closed, 8 it did something else");
  KJ_IF_MAYBE (files, line.parse(given, 1)) {
    if (files->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which recording? give its file")).raise();
    }
    words.file = (*files)[0];
    words.json = line.json();
    return kj::mv(words);
  }
  printOut(line.help());
  return nullptr;
}

kj::String toJson(const ReplayReport& report) {
  JsonLine line;
  line.text("device", report.device)
      .number("events", report.events)
      .number("chains", report.chains)
      .truth("isCut", report.isCut);
  KJ_IF_MAYBE (why, report.unfollowed) {
    line.text("unfollowed", *why);
  }
  KJ_IF_MAYBE (difference, report.difference) {
    line.json("difference", JsonLine()
                                .number("event", difference->event)
                                .text("what", difference->what)
                                .text("how", difference->how));
  } else {
    line.null("difference");
  }
  return kj::str(line.render(), "\n");
}

// What it came to; throws for a difference.
void tell(const ReplayWords& words, const ReplayReport& report) {
  if (words.json) printOut(toJson(report));
  KJ_IF_MAYBE (difference, report.difference) {
    UserError error(codes::REPLAY_DIFFERS,
                    kj::str("event ", difference->event, " of ", quote(words.file),
                            " does not come again: ", difference->what));
    error.cause(difference->how).raise();
  }
  if (words.json) return;
  printOut(kj::str(report.device, ": ", report.events, " events, ", report.chains,
                   " chains, no difference\n"));
  KJ_IF_MAYBE (why, report.unfollowed) {
    printOut(kj::str("not followed to its end: ", *why, "\n"));
  }
  if (report.isCut) printOut("the recording is cut off in the middle of an event\n");
}

}  // namespace

ExitCode replayCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  KJ_IF_MAYBE (words, parse(given)) {
    if (words->show) {
      showRecording(words->file, words->json);
      return ExitCode::POWERED_OFF;
    }
    kj::AutoCloseFd executable;
    KJ_IF_MAYBE (path, words->binary) {
      executable = openDevicesProgramAt(*path);
    } else {
      executable = openDevicesProgram();
    }
    tell(*words, replayRecording(words->file, executable));
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
