// `troupe gc`: removes what nobody was left to remove.

#include <capnp/message.h>

#include "sandbox/limits/cgroup.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/commands/gc_report.capnp.h"
#include "vmm/files/run_folder.h"
#include "vmm/words/json_report.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_PATH = 4096;

}  // namespace

ExitCode gcCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("gc",
                   "Removes what your VMs left behind that were killed: sockets, locks and control "
                   "groups, known as dead by their locks, and the requests that were put aside. "
                   "Nothing of a VM that lives.",
                   "", "troupe gc");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto files = removeDead(Leftovers::ALL_OF_THEM);
  auto groups = sandbox::removeDeadGroups();
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<GcReport>();
  auto removed = report.initRemoved(files.size() + groups.size());
  for (kj::uint i = 0; i < removed.size(); i++) {
    bool isFile = i < files.size();
    auto& path = isFile ? files[i] : groups[i - files.size()];
    removed[i].setKind(isFile ? leftoverKind(path) : "control group"_kj);
    removed[i].setPath(escape(path, LONGEST_PATH));
  }
  if (line.json()) {
    printOut(kj::str(reportJson(report.asReader()), "\n"));
    return ExitCode::POWERED_OFF;
  }
  if (removed.size() == 0) {
    printOut("there was nothing to remove\n");
    return ExitCode::POWERED_OFF;
  }
  constexpr kj::StringPtr HEADINGS[] = {"REMOVED"_kj, "PATH"_kj};
  Table table(HEADINGS);
  for (auto one : report.asReader().getRemoved())
    table.add(kj::arr(kj::str(one.getKind()), kj::str(one.getPath())));
  printOut(table.render());
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
