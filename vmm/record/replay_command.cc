#include <kj/async-io.h>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/error_codes.h"
#include "vmm/programs.h"
#include "vmm/quote.h"
#include "vmm/record/event_words.h"
#include "vmm/record/replay.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

struct ReplayWords {
  kj::StringPtr file;
  kj::Maybe<kj::StringPtr> binary;
  bool show = false;
};

kj::Maybe<ReplayWords> parse(kj::ArrayPtr<const kj::StringPtr> given) {
  ReplayWords words;
  CommandLine line("replay",
                   "Has a device process see again what one saw that was recorded (troupe run "
                   "--record), without a VM, and tells the first thing that it does otherwise.",
                   "FILE");
  line.add({"binary", "FILE", "the executable of the devices to try, in place of troupe-devices",
            false, [&](kj::StringPtr word) { words.binary = word; }});
  line.add({"show", "", "print what was recorded, one line for each event, and replay nothing",
            false, [&](kj::StringPtr) { words.show = true; }});
  line.epilog(
      "exit codes: 0 it did the same, 8 it did something else, 2 the file is no recording, 4 the "
      "device's jail could not be closed. See troupe-replay in the manual.");
  KJ_IF_MAYBE (files, line.parse(given, 1)) {
    if (files->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which recording? give its file")).raise();
    }
    words.file = (*files)[0];
    return kj::mv(words);
  }
  printOut(line.help());
  return nullptr;
}

void show(RecordingReader& recording) {
  auto& events = recording.events();
  for (size_t i = 0; i < events.size(); i++) {
    auto line = recording.checked([&]() {
      return events.with(i, [&](FlightEvent::Reader event) {
        return kj::str(i + 1, "  ", event.getNanoseconds() / 1000, " us  ", eventWords(event),
                       "\n");
      });
    });
    printOut(line);
  }
}

}  // namespace

ExitCode replayCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  KJ_IF_MAYBE (words, parse(given)) {
    RecordingReader recording(words->file);
    if (words->show) {
      show(recording);
      return ExitCode::POWERED_OFF;
    }
    auto io = kj::setupAsyncIo();
    kj::AutoCloseFd executable;
    KJ_IF_MAYBE (path, words->binary) {
      executable = openDevicesProgramAt(*path);
    } else {
      executable = openDevicesProgram();
    }
    auto result = replay(io, recording, executable);
    auto device = recording.checked([&]() { return escape(recording.head().getDevice(), 64); });
    KJ_IF_MAYBE (difference, result.difference) {
      UserError error(codes::REPLAY_DIFFERS,
                      kj::str("event ", difference->event, " of ", quote(words->file),
                              " does not come again: ", difference->what));
      error.cause(difference->how).raise();
    }
    printOut(kj::str(device, ": ", result.events, " events, ", result.chains,
                     " chains, no difference\n"));
    KJ_IF_MAYBE (why, result.unfollowed) {
      printOut(kj::str("not followed to its end: ", *why, "\n"));
    }
    if (recording.isCut()) printOut("the recording is cut off in the middle of an event\n");
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
