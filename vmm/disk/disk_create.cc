#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/disk/disk_commands.h"
#include "vmm/disk/disk_report.capnp.h"
#include "vmm/disk/disk_tool.h"
#include "vmm/disk/disk_words.h"
#include "vmm/files/new_file.h"
#include "vmm/files/open_file.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_report.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_BACKING_NAME = 1023;  // of qcow2
constexpr uint64_t LEAST_CLUSTER = 512;
constexpr uint64_t MOST_CLUSTER = 2 << 20;
constexpr uint32_t USUAL_CLUSTER_BITS = 16;

struct CreateWords {
  DiskWords disk;
  kj::Maybe<uint32_t> clusterBits;
  bool lazyRefcounts = false;
  NewFile::Existing existing = NewFile::Existing::REFUSE;
  bool json = false;
};

uint32_t parseClusterBits(kj::StringPtr text) {
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    bool isPower = *bytes != 0 && (*bytes & (*bytes - 1)) == 0;
    if (isPower && *bytes >= LEAST_CLUSTER && *bytes <= MOST_CLUSTER)
      return __builtin_ctzll(*bytes);
  }
  UserError(codes::DISK_CLUSTERS, kj::str("--cluster-size ", quote(text), " is not possible; a ",
                                          "cluster is a power of two from 512 bytes to 2M"))
      .raise();
}

void addOptions(CommandLine& line, CreateWords& words) {
  addFormatOption(line, words.disk);
  addBackingOption(line, words.disk);
  line.add({"cluster-size", "N", "of a qcow2 image; 64K unless given", false,
            [&](kj::StringPtr value) { words.clusterBits = parseClusterBits(value); }});
  line.add({"lazy-refcounts", "", "of a qcow2 image: fewer writes, a repair after a crash", false,
            [&](kj::StringPtr) { words.lazyRefcounts = true; }});
  line.add({"force", "", "replace a file that is there", false,
            [&](kj::StringPtr) { words.existing = NewFile::Existing::REPLACE; }});
  line.epilog(
      "Without --format a disk is raw. SIZE has a unit K, M, G or T, or is in bytes. A new qcow2 "
      "image over "
      "a backing file has that file's size unless SIZE is given. Every file of the chain below is "
      "named, "
      "from top to bottom.");
}

// What only an image has.
void checkChoices(const CreateWords& words, DiskFormat format) {
  if (format != DiskFormat::RAW) return;
  if (words.clusterBits == nullptr && !words.lazyRefcounts) return;
  UserError(codes::DISK_CHOICE, kj::str(words.lazyRefcounts ? "--lazy-refcounts" : "--cluster-size",
                                        " goes with --format qcow2; a raw disk has no such thing"))
      .raise();
}

kj::String folderPrefix(kj::StringPtr path) {
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    return kj::heapString(path.begin(), *slash + 1);
  }
  return kj::str();
}

// The name of `backing` for the header of the image at `path`. A relative name in a header is meant
// from the image's folder, so only a file in that folder can have one; QEMU would take what stands
// before a colon for a protocol.
kj::String backingNameFor(kj::StringPtr path, kj::StringPtr backing) {
  if (backing.startsWith("/")) return kj::heapString(backing);
  auto folder = folderPrefix(path);
  auto rest = backing.startsWith(folder) ? backing.slice(folder.size()) : backing;
  bool isBeside =
      backing.startsWith(folder) && !rest.startsWith("/") && rest.findFirst(':') == nullptr;
  if (isBeside) return kj::heapString(rest);
  char here[PATH_MAX];
  if (getcwd(here, sizeof(here)) == nullptr) {
    UserError(codes::DISK_NOT_MADE, kj::str("the current folder has no path: ", errnoText(errno)))
        .raise();
  }
  return kj::str(here, "/", backing);
}

void requireShortName(kj::StringPtr name) {
  if (name.size() <= LONGEST_BACKING_NAME) return;
  UserError(codes::DISK_NOT_MADE,
            kj::str("backing file ", quote(name), " has a path of ", name.size(),
                    " bytes; a header takes at most ", LONGEST_BACKING_NAME))
      .raise();
}

void createRaw(NewFile& file, kj::StringPtr path, uint64_t bytes) {
  if (ftruncate(file.fd(), bytes) == 0 && fsync(file.fd()) == 0) return;
  UserError(codes::DISK_NOT_MADE, kj::str("disk ", quote(path), " of ", sizeText(bytes),
                                          " cannot be made: ", errnoText(errno)))
      .raise();
}

uint64_t createImage(NewFile& file, const DiskPlan& plan, const CreateWords& words,
                     kj::StringPtr backingName, uint64_t bytes) {
  auto backing = openBackingFiles(plan.backing);
  auto answer = askDiskTool(
      {plan.path, file.fd(), plan.backing, backing},
      [&](DiskToolRequest::Builder request) {
        auto create = request.initCreate();
        create.setBytes(bytes);
        create.setClusterBits(words.clusterBits.orDefault(USUAL_CLUSTER_BITS));
        create.setLazyRefcounts(words.lazyRefcounts);
        create.setBackingName(backingName);
      },
      DiskToolReport::CREATED, [](uint64_t, uint64_t) {});
  return answer->getRoot<DiskToolReport>().getCreated();
}

// As a part of --disk, where a comma separates.
kj::String withCommasDoubled(kj::StringPtr path) {
  kj::Vector<char> text;
  for (char c : path) {
    text.add(c);
    if (c == ',') text.add(c);
  }
  return kj::heapString(text.begin(), text.size());
}

void tell(const DiskPlan& plan, kj::StringPtr backingName, uint64_t bytes, bool json) {
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<DiskCreatedJson>();
  report.setPath(escape(plan.path));
  report.setFormat(formatName(plan.format));
  report.setVirtualBytes(bytes);
  auto backing = report.initBacking(plan.backing.size());
  kj::Vector<kj::String> parts;
  parts.add(
      kj::str(withCommasDoubled(plan.path), plan.format == DiskFormat::RAW ? "" : ",format=qcow2"));
  for (uint32_t i = 0; i < backing.size(); i++) {
    kj::StringPtr name = plan.backing[i].path;
    // As the header has it from now on.
    if (i == 0 && backingName.startsWith("/")) name = backingName;
    backing.set(i, kj::str(escape(name), ":", formatName(plan.backing[i].format)));
    parts.add(
        kj::str("backing=", withCommasDoubled(name), ":", formatName(plan.backing[i].format)));
  }
  if (json) {
    printOut(kj::str(reportJson(report.asReader()), "\n"));
    return;
  }
  printOut(kj::str(escape(plan.path), ": ", formatName(plan.format), ", ", sizeText(bytes),
                   "\nuse it with: --disk ", escape(kj::strArray(parts, ","), 4096), "\n"));
}

ExitCode create(kj::ArrayPtr<const kj::StringPtr> arguments, CreateWords&& words) {
  if (words.disk.format == nullptr) words.disk.format = DiskFormat::RAW;
  auto plan = planNamedDisk(arguments[0], kj::mv(words.disk), false);
  checkChoices(words, plan.format);
  uint64_t bytes = 0;
  if (arguments.size() > 1) {
    bytes = parseDiskSize(arguments[1]);
  } else if (plan.backing.size() == 0) {
    UserError(codes::ARGUMENTS, kj::str("how large is disk ", quote(plan.path),
                                        " to be? only one over a backing file needs no SIZE"))
        .advice("see", "troupe disk create --help")
        .raise();
  }
  kj::String backingName;
  if (plan.backing.size() > 0) {
    backingName = backingNameFor(plan.path, plan.backing[0].path);
    requireShortName(backingName);
  }
  NewFile file(plan.path, words.existing);
  if (plan.format == DiskFormat::RAW) {
    createRaw(file, plan.path, bytes);
  } else {
    bytes = createImage(file, plan, words, backingName, bytes);
  }
  file.publish();
  tell(plan, backingName, bytes, words.json);
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode diskCreate(kj::ArrayPtr<const kj::StringPtr> given) {
  CreateWords words;
  CommandLine line("disk create", "Makes a disk.", "PATH [SIZE]",
                   "troupe disk create data.qcow2 20G --format qcow2");
  addOptions(line, words);
  KJ_IF_MAYBE (arguments, line.parse(given, 2)) {
    if (arguments->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which file is the disk to be? give PATH and SIZE"))
          .advice("see", "troupe disk create --help")
          .raise();
    }
    words.json = line.json();
    return create(*arguments, kj::mv(words));
  }
  printOut(line.help());
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
