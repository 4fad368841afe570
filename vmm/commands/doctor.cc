#include <capnp/message.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/commands/doctor.capnp.h"
#include "vmm/commands/host_check.h"
#include "vmm/words/json_report.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::StringPtr stateText(HostFinding::State state) {
  switch (state) {
    case HostFinding::State::PRESENT:
      return "ok";
    case HostFinding::State::MISSING:
      return "MISSING";
    case HostFinding::State::REDUCED:
      return "reduced";
  }
  KJ_UNREACHABLE;
}

kj::String asTable(kj::ArrayPtr<const HostFinding> findings) {
  constexpr kj::StringPtr HEADINGS[] = {"WHAT"_kj, "STATE"_kj, "FOUND"_kj};
  Table table(HEADINGS);
  kj::Vector<kj::String> advice;
  for (auto& finding : findings) {
    table.add(
        kj::arr(kj::str(finding.name), kj::str(stateText(finding.state)), kj::str(finding.detail)));
    if (finding.state == HostFinding::State::PRESENT) continue;
    advice.add(
        kj::str("\n", finding.name, "\n  see:  ", finding.see, "\n  mend: ", finding.mend, "\n"));
  }
  return kj::str(table.render(), kj::strArray(advice, ""));
}

kj::String asJson(kj::ArrayPtr<const HostFinding> findings) {
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<DoctorReport>();
  auto list = report.initFindings(findings.size());
  for (kj::uint i = 0; i < findings.size(); i++) {
    list[i].setName(findings[i].name);
    list[i].setState(stateText(findings[i].state));
    list[i].setFound(findings[i].detail);
    list[i].setSee(findings[i].see);
    list[i].setMend(findings[i].mend);
  }
  return kj::str(reportJson(report.asReader()), "\n");
}

}  // namespace

ExitCode doctorCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("doctor", "Checks what this host offers, and says how to mend what it lacks.",
                   "", "troupe doctor");
  line.exits("0 a VM can run here, 3 something it needs is missing");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto findings = checkHost();
  printOut(line.json() ? asJson(findings) : asTable(findings));
  size_t missing = 0;
  for (auto& finding : findings)
    missing += finding.state == HostFinding::State::MISSING;
  if (missing > 0) {
    UserError(codes::HOST_CHECK_FAILED,
              kj::str(missing, " of the things a VM needs ", missing == 1 ? "is" : "are",
                      " missing on this host"))
        .raise();
  }
  if (!line.json()) printOut("\nThis host can run VMs.\n");
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
