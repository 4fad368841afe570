#include "vmm/actors/child_log.h"
#include "vmm/cli/commands.h"
#include "vmm/commands/watching.h"
#include "vmm/config/config_file.h"
#include "vmm/config/run_options.h"
#include "vmm/config/vm_plan.h"
#include "vmm/serve/hosting.h"
#include "vmm/words/json_line.h"

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
  if (request.json) sayInJson();
  auto end = hostVm(
      config, request.paused ? Begin::PAUSED : Begin::RUNNING,
      [&](RunningVm& vm) {
        for (auto& note : vm.notes())
          printError(kj::str("troupe: ", note, "\n"));
        if (!request.json) return;
        printErrorAsIs(kj::str(JsonLine()
                                   .text("name", vm.name())
                                   .text("state", request.paused ? "paused" : "running")
                                   .render(),
                               "\n"));
      },
      watch);
  if (request.json) {
    printErrorAsIs(kj::str(
        JsonLine().number("exitCode", uint64_t(end.exit)).text("reason", end.message).render(),
        "\n"));
  } else if (end.message.size() > 0) {
    printError(kj::str("troupe: ", end.message, "\n"));
  }
  return end.exit;
}

}  // namespace troupe
