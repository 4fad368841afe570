#include "vmm/vm_words.h"

#include "vmm/commands.h"
#include "vmm/user_error.h"

namespace troupe {

kj::Maybe<VmWords> parseVmWords(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words,
                                bool offersJson) {
  bool json = false;
  if (offersJson) {
    line.add({"json", "", "print JSON", false, [&](kj::StringPtr) { json = true; }});
  }
  auto arguments = line.parse(words, 1);
  KJ_IF_MAYBE (found, arguments) {
    if (found->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which VM? give its name"))
          .advice("see", "troupe list")
          .raise();
    }
    return VmWords{(*found)[0], json};
  }
  printOut(line.help());
  return nullptr;
}

}  // namespace troupe
