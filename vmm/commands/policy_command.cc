#include <errno.h>
#include <kj/vector.h>
#include <unistd.h>

#include "vmm/actors/programs.h"
#include "vmm/cli/commands.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

ExitCode policyCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  auto program = openPolicyProgram();
  kj::Vector<char*> arguments(words.size() + 2);
  arguments.add(const_cast<char*>("troupe-policy"));
  for (auto word : words)
    arguments.add(const_cast<char*>(word.cStr()));
  arguments.add(nullptr);
  fexecve(program, arguments.begin(), environ);
  int error = errno;
  UserError(codes::PROGRAM_MISSING, kj::str("troupe-policy cannot be executed: ", errnoText(error)))
      .advice("see", "ls -l $(dirname $(command -v troupe))")
      .raise();
}

}  // namespace troupe
