#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

namespace troupe {

// The verbs of `troupe`. Each is given the words after its name, prints what it has to say, and
// returns what to exit with or throws a user error.
ExitCode runCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode serialCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode consoleCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode demoCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode doctorCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode listCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode statusCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode inspectCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode pauseCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode resumeCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode resetCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode graphCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode stopCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode powerButtonCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode balloonCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode balloonStatsCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode netCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode replayCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode deviceCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode gcCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode diskCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode policyCommand(kj::ArrayPtr<const kj::StringPtr> words);  // by another program
ExitCode versionCommand(kj::ArrayPtr<const kj::StringPtr> words);

// Writes to standard output; throws when it cannot.
void printOut(kj::StringPtr text);

}  // namespace troupe
