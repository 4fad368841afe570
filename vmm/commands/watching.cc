#include "vmm/commands/watching.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr OPTION = "--watch-calls="_kj;

}  // namespace

kj::Maybe<sandbox::WatchRequest> takeWatchRequest(kj::ArrayPtr<const kj::StringPtr>& words) {
  if (words.size() == 0 || !words[0].startsWith(OPTION)) {
    return sandbox::coverageFromEnvironment();
  }
  auto value = words[0].slice(OPTION.size());
  words = words.slice(1, words.size());
  for (auto mode : {sandbox::WatchMode::REPORT_ALL, sandbox::WatchMode::REPORT_REFUSED}) {
    auto name = mode == sandbox::WatchMode::REPORT_ALL ? "all:"_kj : "refused:"_kj;
    if (!value.startsWith(name) || value.size() == name.size()) continue;
    return sandbox::WatchRequest{mode, kj::str(value.slice(name.size()))};
  }
  UserError(codes::NOT_A_CHOICE, kj::str("--watch-calls ", quote(value),
                                         " is neither all:FOLDER nor refused:FOLDER; "
                                         "`troupe policy learn` writes it, and nobody else"))
      .raise();
}

}  // namespace troupe
