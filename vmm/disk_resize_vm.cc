#include "vmm/disk_resize_vm.h"

#include <kj/async-io.h>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/control_client.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

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
  kj::StringPtr vm;
  CommandLine line("disk resize",
                   "Makes the disk with the id DISK of a running VM larger and tells its guest. A "
                   "block device is asked for its new size, so SIZE is left out.",
                   "DISK [SIZE]");
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
  printOut(kj::str("disk ", quote(found[0]), " of VM ", quote(vm), " has ", size, " bytes now\n"));
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
