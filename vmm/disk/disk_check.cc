#include <unistd.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/disk/disk_commands.h"
#include "vmm/disk/disk_report.capnp.h"
#include "vmm/disk/disk_tool.h"
#include "vmm/disk/disk_words.h"
#include "vmm/files/open_file.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_report.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct CheckWords {
  DiskWords disk;
  bool repairLeaks = false;
  bool json = false;
};

// A kind that is not known comes from a process that is not itself any more.
kj::StringPtr flawName(DiskCheck::Flaw flaw) {
  switch (flaw) {
    case DiskCheck::Flaw::COUNTED_TOO_LOW:
      return "counted-too-low";
    case DiskCheck::Flaw::LEAKED:
      return "leaked";
    case DiskCheck::Flaw::COPIED_FLAG:
      return "copied-flag";
    case DiskCheck::Flaw::OUTSIDE:
      return "outside-the-file";
    case DiskCheck::Flaw::MISALIGNED:
      return "misaligned";
    case DiskCheck::Flaw::RESERVED_BITS:
      return "reserved-bits";
    case DiskCheck::Flaw::REFCOUNT_BLOCK:
      return "refcount-block";
    case DiskCheck::Flaw::SHARED_BLOCK:
      return "shared-refcount-block";
    case DiskCheck::Flaw::SNAPSHOT:
      return "snapshot";
  }
  return "unknown";
}

void copyResult(kj::StringPtr path, DiskCheck::Reader from, DiskCheckJson::Builder to) {
  to.setPath(escape(path));
  to.setErrors(from.getErrors());
  to.setLeaks(from.getLeaks());
  to.setRepairedLeaks(from.getRepairedLeaks());
  to.setTotalClusters(from.getTotalClusters());
  to.setAllocatedClusters(from.getAllocatedClusters());
  to.setCompressedClusters(from.getCompressedClusters());
  to.setEndOffset(from.getEndOffset());
  to.setDirty(from.getIsDirty());
  auto findings = from.getFindings();
  constexpr kj::uint MOST_FINDINGS = 32;
  auto copies = to.initFindings(kj::min(findings.size(), MOST_FINDINGS));
  for (uint32_t i = 0; i < copies.size(); i++) {
    copies[i].setFlaw(flawName(findings[i].getFlaw()));
    copies[i].setOffset(findings[i].getCluster() * from.getClusterBytes());
    copies[i].setCounted(findings[i].getCounted());
    copies[i].setUsed(findings[i].getUsed());
  }
}

kj::String verdict(DiskCheckJson::Reader result) {
  if (result.getErrors() > 0) {
    return kj::str(result.getErrors(), " errors and ", result.getLeaks(), " leaked clusters");
  }
  if (result.getLeaks() > 0)
    return kj::str("no errors, but ", result.getLeaks(), " leaked clusters");
  if (result.getRepairedLeaks() > 0) {
    return kj::str("no errors; ", result.getRepairedLeaks(), " leaked clusters were given back");
  }
  return kj::str("no errors and no leaks");
}

kj::String describe(DiskCheckJson::Reader result, bool wasToRepair) {
  kj::Vector<kj::String> lines;
  lines.add(kj::str(result.getPath(), ": ", verdict(result), "; ", result.getAllocatedClusters(),
                    " of ", result.getTotalClusters(), " clusters are allocated\n"));
  auto findings = result.getFindings();
  if (findings.size() > 0) {
    constexpr kj::StringPtr HEADINGS[] = {"FLAW"_kj, "OFFSET"_kj, "COUNTED"_kj, "USED"_kj};
    Table table(HEADINGS);
    for (auto found : findings) {
      table.add(kj::arr(kj::str(found.getFlaw()), kj::str("0x", kj::hex(found.getOffset())),
                        kj::str(found.getCounted()), kj::str(found.getUsed())));
    }
    lines.add(table.render());
    uint64_t all = result.getErrors() + result.getLeaks() + result.getRepairedLeaks();
    if (all > findings.size()) lines.add(kj::str("and ", all - findings.size(), " more\n"));
  }
  if (result.getErrors() > 0) {
    if (wasToRepair) {
      lines.add(
          kj::str("nothing was repaired: what is used cannot be told in an image with "
                  "errors\n"));
    }
    lines.add(kj::str(
        result.getDirty()
            ? "it was not closed: a VM that may write it, or `qemu-img check -r all`, counts anew\n"
            : "do not write to it; `qemu-img check -r all` may repair it\n"));
  } else if (result.getLeaks() > 0) {
    lines.add(kj::str("nothing is lost but space; --repair leaks gives it back\n"));
  }
  return kj::strArray(lines, "");
}

// Says how far it is, on a terminal, where somebody waits.
class Ticker {
 public:
  void reached(uint64_t done, uint64_t total) {
    if (total == 0 || !isTerminal) return;
    uint64_t percent = done >= total ? 100 : uint64_t(double(done) * 100 / double(total));
    if (percent == shown) return;
    shown = percent;
    printError(kj::str("\rchecking: ", percent, " %"));
  }
  ~Ticker() {
    if (shown != NOTHING) printError("\r                \r");
  }

 private:
  static constexpr uint64_t NOTHING = UINT64_MAX;
  const bool isTerminal = isatty(STDERR_FILENO);
  uint64_t shown = NOTHING;
};

ExitCode check(kj::StringPtr path, CheckWords&& words) {
  DiskPlan plans[] = {planNamedDisk(path, kj::mv(words.disk), !words.repairLeaks)};
  if (plans[0].format == DiskFormat::RAW) {
    UserError(codes::DISK_CHOICE,
              kj::str("disk ", quote(path), " is raw, and there is nothing in a ",
                      "raw disk that could be checked; the file system in it "
                      "is its guest's"))
        .raise();
  }
  auto files = openDisks(plans);
  if (words.repairLeaks) settle(files[0]);
  ToolAnswer answer;
  {
    Ticker ticker;
    answer = askDiskTool(
        {path, files[0].fd, nullptr, nullptr},
        [&](DiskToolRequest::Builder request) {
          request.initCheck().setRepairLeaks(words.repairLeaks);
        },
        DiskToolReport::CHECK, [&](uint64_t done, uint64_t total) { ticker.reached(done, total); });
  }
  capnp::MallocMessageBuilder message;
  auto result = message.initRoot<DiskCheckJson>();
  copyResult(path, answer->getRoot<DiskToolReport>().getCheck(), result);
  if (words.json) {
    printOut(kj::str(reportJson(result.asReader()), "\n"));
  } else {
    printOut(describe(result, words.repairLeaks));
  }
  if (result.getErrors() > 0) return ExitCode::DISK_ERRORS;
  return result.getLeaks() > 0 ? ExitCode::DISK_LEAKS : ExitCode::POWERED_OFF;
}

void parseRepair(kj::StringPtr value) {
  if (value == "leaks") return;
  UserError(codes::NOT_A_CHOICE,
            kj::str("--repair ", quote(value),
                    " is not known; expected leaks: ", "errors are not repaired here"))
      .raise();
}

}  // namespace

ExitCode diskCheck(kj::ArrayPtr<const kj::StringPtr> given) {
  CheckWords words;
  CommandLine line("disk check", "Counts the errors and leaks of a qcow2 image.", "PATH",
                   "troupe disk check data.qcow2 --format qcow2");
  addFormatOption(line, words.disk);
  line.add({"repair", "leaks", "give leaked space back, if there is no error", false,
            [&](kj::StringPtr value) {
              parseRepair(value);
              words.repairLeaks = true;
            }});
  line.exits(
      "0 neither errors nor leaks, 1 internal error, 2 wrong words or files, 3 the host lacks "
      "something, 6 errors, 7 leaks only");
  KJ_IF_MAYBE (arguments, line.parse(given, 1)) {
    if (arguments->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which disk? give its PATH"))
          .advice("see", "troupe disk check --help")
          .raise();
    }
    words.json = line.json();
    return check((*arguments)[0], kj::mv(words));
  }
  printOut(line.help());
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
