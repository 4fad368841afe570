// `troupe disk VERB …`: disk images that no VM uses. They are locked as a VM locks them, and what
// is in an image is parsed in a jailed process (disk_tool.h).
//
// `resize` is told by --vm which disk it is about: `resize PATH SIZE --format F` is a file that no
// VM uses, `resize DISK SIZE --vm VM` the disk with the id DISK of a running VM. The second is a
// verb of its own to the dispatch below, which looks for --vm among the words, with its own
// options.
#include <kj/debug.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/commands.h"
#include "vmm/disk/disk_commands.h"
#include "vmm/disk/disk_resize_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct DiskVerb {
  kj::StringPtr name;
  ExitCode (*command)(kj::ArrayPtr<const kj::StringPtr> words);
  kj::StringPtr help;
};

constexpr DiskVerb DISK_VERBS[] = {
    {"create"_kj, &diskCreate, "makes a disk, raw or a qcow2 image"_kj},
    {"info"_kj, &diskInfo, "shows what a disk's file and header say"_kj},
    {"check"_kj, &diskCheck, "counts the errors and leaks of a qcow2 image"_kj},
    {"resize"_kj, &diskResize, "makes a disk larger, or a raw one smaller"_kj},
};

kj::String diskOverview() {
  kj::Vector<kj::String> lines;
  lines.add(kj::str("usage: troupe disk VERB ..."));
  lines.add(
      kj::str("Disks that no VM uses; with --vm, `resize` is about a disk of a running one.\n"));
  for (auto& verb : DISK_VERBS)
    lines.add(
        kj::str("  ", verb.name, kj::StringPtr("        ").slice(verb.name.size()), verb.help));
  lines.add(kj::str("\n`troupe disk VERB --help` tells more."));
  return kj::str(kj::strArray(lines, "\n"), "\n");
}

ExitCode dispatchDisk(kj::ArrayPtr<const kj::StringPtr> words) {
  kj::StringPtr names[kj::size(DISK_VERBS)];
  for (size_t i = 0; i < kj::size(DISK_VERBS); i++)
    names[i] = DISK_VERBS[i].name;
  if (words.size() == 0) {
    UserError(codes::ARGUMENTS,
              kj::str("troupe disk needs a verb; the verbs are ", kj::strArray(names, ", ")))
        .advice("see", "troupe disk --help")
        .raise();
  }
  auto name = words[0];
  if (name == "--help" || name == "-h" || name == "help") {
    printOut(diskOverview());
    return ExitCode::POWERED_OFF;
  }
  if (name == "resize" && isAboutVm(words)) return resizeDiskOfVm(words.slice(1, words.size()));
  for (auto& verb : DISK_VERBS) {
    if (verb.name == name) return verb.command(words.slice(1, words.size()));
  }
  UserError(codes::UNKNOWN_COMMAND,
            kj::str("troupe disk has no verb ", quote(name), didYouMean(name, names),
                    "; the verbs are ", kj::strArray(names, ", ")))
      .advice("see", "troupe disk --help")
      .raise();
}

}  // namespace

// For `run`, an image that does not do is a device that cannot begin; here it is a file that was
// named.
ExitCode diskCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  auto exit = ExitCode::INTERNAL;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { exit = dispatchDisk(words); })) {
    auto status = toStatus(*exception);
    exit = exitCodeOf(status);
    if (exit != ExitCode::START) kj::throwFatalException(kj::mv(*exception));
    printError(kj::str("troupe: ", kj::heapString(status.message().data(), status.message().size()),
                       "\n"));
    exit = ExitCode::USAGE;
  }
  return exit;
}

}  // namespace troupe
