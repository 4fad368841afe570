#include "vmm/disk/disk_resize_vm.h"

#include <kj/async-io.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_line.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

uint64_t parseDiskSize(kj::StringPtr text) {
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    if (*bytes > 0) return *bytes;
  }
  UserError(codes::VM_DISK_RESIZE, kj::str(quote(text),
                                           " is not the size of a disk; expected a number "
                                           "of bytes with a unit K, M, G or T if wanted: 20G"))
      .raise();
}

}  // namespace

bool isAboutVm(kj::ArrayPtr<const kj::StringPtr> words) {
  for (kj::StringPtr word : words) {
    if (word == "--vm" || word.startsWith("--vm=")) return true;
  }
  return false;
}

ExitCode resizeDiskOfVm(kj::ArrayPtr<const kj::StringPtr> words) {
  for (kj::StringPtr word : words) {
    for (auto other : {"--format"_kj, "--backing"_kj, "--shrink"_kj}) {
      if (word != other && !word.startsWith(kj::str(other, "="))) continue;
      UserError(codes::ARGUMENTS, kj::str(other,
                                          " is for a disk that no VM uses, and --vm for one of a "
                                          "running VM: they exclude each other"))
          .advice("see", "troupe disk resize --vm VM --help")
          .raise();
    }
  }
  kj::StringPtr vm;
  CommandLine line("disk resize",
                   "Makes the disk with the id DISK of a running VM larger and tells its guest. A "
                   "block device is asked for its new size, so SIZE is left out.",
                   "DISK [SIZE]", "troupe disk resize disk0 40G --vm web");
  line.add({"vm", "VM", "the VM whose disk it is", false, [&](kj::StringPtr name) { vm = name; }});
  auto arguments = line.parse(words, 2);
  if (arguments == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto& found = KJ_ASSERT_NONNULL(arguments);
  if (found.size() == 0) {
    UserError(codes::ARGUMENTS, kj::str("which disk of VM ", quote(vm), "? give its id"))
        .advice("see", "troupe disk resize --vm VM --help")
        .raise();
  }
  uint64_t wanted = found.size() == 2 ? parseDiskSize(found[1]) : 0;
  auto io = kj::setupAsyncIo();
  ControlClient client(io, vm);
  auto request = client.vm().resizeDiskRequest();
  request.setDisk(found[0]);
  request.setBytes(wanted);
  auto answer = request.send().then(
      [](auto&& response) { return uint64_t(response.getBytes()); },
      [&](kj::Exception&& failure) -> uint64_t {
        auto what = kj::str("disk ", quote(found[0]), " of VM ", quote(vm), " keeps its size");
        kj::throwFatalException(wrapActorError(failure, codes::INTERNAL, what).toException());
      });
  auto size = client.await(kj::mv(answer));
  if (line.json()) {
    printOut(kj::str(
        JsonLine().text("name", vm).text("disk", found[0]).number("bytes", size).render(), "\n"));
    return ExitCode::POWERED_OFF;
  }
  printOut(kj::str("disk ", quote(found[0]), " of VM ", quote(vm), " has ", size, " bytes now\n"));
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
