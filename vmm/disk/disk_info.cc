#include <sys/stat.h>

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

constexpr size_t LONGEST_NAME_SHOWN = 4 * 1023;  // each byte of a header's name may be escaped

void describeFile(const OpenFile& file, DiskInfoJson::Builder report) {
  struct stat info;
  if (fstat(file.fd, &info) != 0) return;
  bool isFile = S_ISREG(info.st_mode);
  report.setFileBytes(isFile ? info.st_size : file.size);
  report.setAllocatedBytes(isFile ? uint64_t(info.st_blocks) * 512 : 0);
}

// `said` comes from a process that read the image, so its text is shown as nobody's own.
void describeImage(DiskImageInfo::Reader said, DiskInfoJson::Builder report) {
  report.setVirtualBytes(said.getBytes());
  auto image = report.initImage();
  image.setVersion(said.getVersion());
  image.setClusterBytes(said.getClusterBytes());
  image.setRefcountBits(said.getRefcountBits());
  image.setCompression(escape(said.getCompression(), 20));
  image.setDirty(said.getIsDirty());
  image.setCorrupt(said.getIsCorrupt());
  image.setSnapshots(said.getSnapshots());
  kj::Vector<kj::StringPtr> features;
  if (said.getLazyRefcounts()) features.add("lazy-refcounts"_kj);
  if (said.getBitmaps()) features.add("bitmaps"_kj);
  auto list = image.initFeatures(features.size());
  for (uint32_t i = 0; i < list.size(); i++)
    list.set(i, features[i]);
  if (!said.getHasBacking()) return;
  auto backing = image.initBacking();
  backing.setName(escape(said.getBackingName(), LONGEST_NAME_SHOWN));
  backing.setFormat(escape(said.getBackingFormat(), 60));
  backing.setChecked(said.getChainChecked());
}

void askImage(const DiskPlan& plan, const OpenFile& file, DiskInfoJson::Builder report) {
  auto answer = askDiskTool(
      {plan.path, file.fd, plan.backing, file.backing},
      [](DiskToolRequest::Builder request) { request.setInfo(); }, DiskToolReport::INFO,
      [](uint64_t, uint64_t) {});
  describeImage(answer->getRoot<DiskToolReport>().getInfo(), report);
}

kj::String exactSize(uint64_t bytes) {
  auto text = sizeText(bytes);
  return text.endsWith(" bytes") ? kj::mv(text) : kj::str(text, " (", bytes, " bytes)");
}

kj::StringPtr yesOrNo(bool value) {
  return value ? "yes"_kj : "no"_kj;
}

void addImageRows(DiskInfoJson::Image::Reader image, Table& table) {
  auto row = [&](kj::StringPtr name, kj::String value) {
    table.add(kj::arr(kj::heapString(name), kj::mv(value)));
  };
  row("version", kj::str(image.getVersion()));
  row("cluster size", exactSize(image.getClusterBytes()));
  row("refcount bits", kj::str(image.getRefcountBits()));
  row("compression", kj::str(image.getCompression()));
  auto features = KJ_MAP(feature, image.getFeatures()) {
    return kj::str(feature);
  };
  row("features", features.size() == 0 ? kj::str("none") : kj::strArray(features, ", "));
  row("dirty", kj::str(image.getDirty() ? "yes: it was not closed" : "no"));
  row("corrupt", kj::str(yesOrNo(image.getCorrupt())));
  row("snapshots", kj::str(image.getSnapshots()));
  if (!image.hasBacking()) return row("backing file", kj::str("none"));
  auto backing = image.getBacking();
  row("backing file", kj::str("\"", backing.getName(), "\""));
  row("backing format",
      backing.getFormat().size() == 0 ? kj::str("not said") : kj::str(backing.getFormat()));
  row("chain", kj::str(backing.getChecked() ? "as the headers say"
                                            : "not looked at; name its files with --backing"));
}

kj::String describe(DiskInfoJson::Reader report) {
  constexpr kj::StringPtr HEADINGS[] = {"PROPERTY"_kj, "VALUE"_kj};
  Table table(HEADINGS);
  auto row = [&](kj::StringPtr name, kj::String value) {
    table.add(kj::arr(kj::heapString(name), kj::mv(value)));
  };
  row("path", kj::str(report.getPath()));
  row("format", kj::str(report.getFormat()));
  row("virtual size", exactSize(report.getVirtualBytes()));
  row("file size", exactSize(report.getFileBytes()));
  row("allocated", exactSize(report.getAllocatedBytes()));
  if (report.hasImage()) addImageRows(report.getImage(), table);
  return table.render();
}

ExitCode info(kj::StringPtr path, DiskWords&& words, bool json) {
  DiskPlan plans[] = {planNamedDisk(path, kj::mv(words), true)};
  auto files = openDisks(plans);
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<DiskInfoJson>();
  report.setPath(escape(path));
  report.setFormat(formatName(plans[0].format));
  report.setVirtualBytes(files[0].size);
  describeFile(files[0], report);
  if (plans[0].format == DiskFormat::QCOW2) askImage(plans[0], files[0], report);
  if (json) {
    printOut(kj::str(reportJson(report.asReader()), "\n"));
  } else {
    printOut(describe(report));
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode diskInfo(kj::ArrayPtr<const kj::StringPtr> given) {
  DiskWords words;
  CommandLine line("disk info", "Shows what a disk's file and header say; changes nothing.", "PATH",
                   "troupe disk info data.qcow2 --format qcow2");
  addFormatOption(line, words);
  addBackingOption(line, words);
  KJ_IF_MAYBE (arguments, line.parse(given, 1)) {
    if (arguments->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which disk? give its PATH"))
          .advice("see", "troupe disk info --help")
          .raise();
    }
    return info((*arguments)[0], kj::mv(words), line.json());
  }
  printOut(line.help());
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
