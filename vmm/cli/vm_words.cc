#include "vmm/cli/vm_words.h"

#include "vmm/cli/commands.h"
#include "vmm/words/user_error.h"

namespace troupe {

kj::Maybe<VmWords> parseVmWords(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words) {
  auto arguments = line.parse(words, 1);
  KJ_IF_MAYBE (found, arguments) {
    if (found->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which VM? give its name"))
          .advice("see", "troupe list")
          .raise();
    }
    return VmWords{(*found)[0], line.json()};
  }
  printOut(line.help());
  return nullptr;
}

}  // namespace troupe
