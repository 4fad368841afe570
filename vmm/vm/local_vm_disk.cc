// A VM and its disks: how one grows while it runs.

#include <kj/debug.h>

#include "vmm/files/disk_growth.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

uint16_t LocalVm::diskNamed(kj::StringPtr id) {
  kj::Vector<kj::StringPtr> ids;
  for (uint16_t i = 0; i < plan.disks.size(); i++) {
    if (plan.disks[i].id == id) return i;
    ids.add(plan.disks[i].id);
  }
  auto which = ids.size() == 0 ? kj::str("; it has none")
                               : kj::str("; its disks are ", kj::strArray(ids, ", "));
  UserError(codes::NO_SUCH_DISK,
            kj::str("VM ", quote(place->name()), " has no disk with the id ", quote(id), which))
      .raise();
}

// The file is grown through the fd that carries the disk's lock.
kj::Promise<uint64_t> LocalVm::resizeDisk(kj::StringPtr id, uint64_t bytes) {
  uint16_t index = diskNamed(id);
  auto& disk = plan.disks[index];
  if (!running || resizing) {
    UserError(codes::VM_DISK_RESIZE, resizing ? kj::str("another resize of a disk is under way")
                                              : kj::str("VM ", quote(place->name()),
                                                        " is not running yet, or not any more"))
        .raise();
  }
  uint64_t size = growDiskFile(disk, files.disks[index].fd, bytes);
  resizing = true;
  auto request = KJ_REQUIRE_NONNULL(broker, "the VM has ended").hostEventRequest();
  request.setDevice(company.firstDisk + index);
  request.initEvent().setDiskSize(size);
  auto over = kj::defer([this]() { resizing = false; });
  return request.send()
      .ignoreResult()
      .attach(kj::mv(over))
      .then(
          [this, &disk, size]() {
            notebook.resized(disk.id, size);
            return size;
          },
          [&disk](kj::Exception&& failure) -> uint64_t {
            kj::throwFatalException(
                wrapActorError(failure, codes::DISK_NOT_GROWN,
                               kj::str("disk ", quote(disk.id), " did not become larger"))
                    .toException());
          });
}

}  // namespace troupe
