#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

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
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct ResizeWords {
  DiskWords disk;
  bool mayShrink = false;
  bool json = false;
};

[[noreturn]] void refuse(const DiskPlan& plan, kj::StringPtr why) {
  UserError(codes::DISK_RESIZE, kj::str("disk ", quote(plan.path), " cannot be resized: ", why))
      .raise();
}

void resizeRaw(const DiskPlan& plan, const OpenFile& file, uint64_t bytes, bool mayShrink) {
  struct stat info;
  if (fstat(file.fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    refuse(plan, "only a regular file can; a block device has the size its owner gave it");
  }
  if (bytes < file.size && !mayShrink) {
    refuse(plan, kj::str("it has ", sizeText(file.size), ", and what lies behind ", sizeText(bytes),
                         " would be lost; --shrink says that this is wanted"));
  }
  if (ftruncate(file.fd, bytes) != 0 || fsync(file.fd) != 0) refuse(plan, errnoText(errno));
}

uint64_t growImage(const DiskPlan& plan, const OpenFile& file, uint64_t bytes, bool mayShrink) {
  if (mayShrink) refuse(plan, "a qcow2 image can be made larger only; --shrink is for raw disks");
  settle(file);
  auto answer = askDiskTool(
      {plan.path, file.fd, plan.backing, file.backing},
      [&](DiskToolRequest::Builder request) { request.setGrow(bytes); }, DiskToolReport::GROWN,
      [](uint64_t, uint64_t) {});
  return answer->getRoot<DiskToolReport>().getGrown();
}

ExitCode resize(kj::StringPtr path, uint64_t bytes, ResizeWords&& words) {
  DiskPlan plans[] = {planNamedDisk(path, kj::mv(words.disk), false)};
  auto& plan = plans[0];
  auto files = openDisks(plans);
  uint64_t before = files[0].size;
  if (plan.format == DiskFormat::RAW) {
    resizeRaw(plan, files[0], bytes, words.mayShrink);
  } else {
    before = growImage(plan, files[0], bytes, words.mayShrink);
  }
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<DiskResizedJson>();
  report.setPath(escape(path));
  report.setFormat(formatName(plan.format));
  report.setBytesBefore(before);
  report.setVirtualBytes(bytes);
  if (words.json) {
    printOut(kj::str(reportJson(report.asReader()), "\n"));
  } else {
    printOut(kj::str(escape(path), ": ", sizeText(before), " -> ", sizeText(bytes), "\n"));
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode diskResize(kj::ArrayPtr<const kj::StringPtr> given) {
  ResizeWords words;
  CommandLine line("disk resize", "Changes the size of a disk that no VM uses.", "PATH SIZE",
                   "troupe disk resize data.qcow2 40G --format qcow2");
  addFormatOption(line, words.disk);
  addBackingOption(line, words.disk);
  line.add({"shrink", "", "a raw disk may become smaller; its end is lost", false,
            [&](kj::StringPtr) { words.mayShrink = true; }});
  // The dispatch sees to it; here for the help.
  line.add({"vm", "VM", "the disk with the id PATH of this running VM instead", false,
            [&](kj::StringPtr) {}});
  KJ_IF_MAYBE (arguments, line.parse(given, 2)) {
    if (arguments->size() < 2) {
      UserError(codes::ARGUMENTS, kj::str("which disk, and how large? give PATH and SIZE"))
          .advice("see", "troupe disk resize --help")
          .raise();
    }
    words.json = line.json();
    return resize((*arguments)[0], parseDiskSize((*arguments)[1]), kj::mv(words));
  }
  printOut(line.help());
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
