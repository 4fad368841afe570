#include "vmm/child_log.h"
#include "vmm/commands.h"
#include "vmm/config_file.h"
#include "vmm/run_options.h"
#include "vmm/serve/hosting.h"
#include "vmm/vm_plan.h"
#include "vmm/watching.h"

namespace troupe {

ExitCode runCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  auto watch = takeWatchRequest(words);
  auto request = parseRunOptions(words);
  if (request.action == RunRequest::Action::HELP) {
    printOut(request.help);
    return ExitCode::POWERED_OFF;
  }
  auto config = request.config->getRoot<VmConfig>();
  if (request.action == RunRequest::Action::PRINT_CONFIG) {
    planVm(config);  // what is printed can be run
    spellOut(config);
    printOut(printConfig(config));
    return ExitCode::POWERED_OFF;
  }
  auto end = hostVm(
      config,
      [](RunningVm& vm) {
        for (auto& note : vm.notes())
          printError(kj::str("troupe: ", note, "\n"));
      },
      watch);
  if (end.message.size() > 0) printError(kj::str("troupe: ", end.message, "\n"));
  return end.exit;
}

}  // namespace troupe
