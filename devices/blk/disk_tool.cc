#include "devices/blk/disk_tool.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "devices/blk/disk.h"
#include "devices/blk/disk_file.h"
#include "devices/blk/qcow2/chain.h"
#include "devices/blk/qcow2/check.h"
#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/new_image.h"

namespace troupe::blk {
namespace {

using Report = DiskToolReport;
using Send = kj::Function<void(capnp::MessageBuilder& report)>;

constexpr uint64_t SECTOR = 512;
constexpr size_t MOST_HEADER_BYTES = 64 << 10;

// Tells `troupe` that this process is alive, by the work it does.
class Pulse {
 public:
  explicit Pulse(Send& send) : send(send) {}

  void reach(uint64_t nowDone, uint64_t ofTotal) {
    done = nowDone;
    total = ofTotal;
  }
  void worked(uint64_t bytes) {
    work += bytes + COST;
    if (work < BEAT) return;
    work = 0;
    capnp::MallocMessageBuilder message;
    auto progress = message.initRoot<Report>().initProgress();
    progress.setDone(done);
    progress.setTotal(total);
    send(message);
  }

 private:
  static constexpr uint64_t BEAT = 4 << 20;
  static constexpr uint64_t COST = 16 << 10;  // a call that moves nothing takes its time too
  Send& send;
  uint64_t work = 0;
  uint64_t done = 0;
  uint64_t total = 0;
};

// A file whose transfers are signs of life.
class WatchedFile final: public qcow2::ImageFile {
 public:
  WatchedFile(int fd, Disk::Access access, Disk::Contents contents, Pulse& pulse)
      : disk(fd, access, RingRules{nullptr, 0}, contents), file(disk), pulse(pulse) {}

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return noted(file.read(pieces, offset));
  }
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return noted(file.write(pieces, offset));
  }
  int sync() override { return noted(file.sync()); }
  int truncate(uint64_t bytes) override { return noted(file.truncate(bytes)); }
  int punch(uint64_t offset, uint64_t bytes) override { return noted(file.punch(offset, bytes)); }
  uint64_t size() override { return file.size(); }
  uint32_t blockBytes() const override { return file.blockBytes(); }

 private:
  template <typename Result>
  Result noted(Result result) {
    pulse.worked(result > 0 ? result : 0);
    return result;
  }

  Disk disk;
  DiskFile file;
  Pulse& pulse;
};

qcow2::ImageFormat formatOf(BlkConfig::Format format) {
  return format == BlkConfig::Format::RAW ? qcow2::ImageFormat::RAW : qcow2::ImageFormat::QCOW2;
}

Disk::Access accessOf(DiskToolRequest::Reader request) {
  bool reads = request.isInfo() || (request.isCheck() && !request.getCheck().getRepairLeaks());
  return reads ? Disk::Access::READ_ONLY : Disk::Access::READ_WRITE;
}

}  // namespace

class DiskTool::Work {
 public:
  Work(DiskToolRequest::Reader request, const DiskToolFiles& files, Send send)
      : request(request),
        send(kj::mv(send)),
        pulse(this->send),
        disk(files.disk, accessOf(request), Disk::Contents::IMAGE, pulse) {
    openBacking(files);
  }

  void serve() {
    switch (request.which()) {
      case DiskToolRequest::CREATE:
        return create(request.getCreate());
      case DiskToolRequest::INFO:
        return info();
      case DiskToolRequest::CHECK:
        return check(request.getCheck());
      case DiskToolRequest::GROW:
        return grow(request.getGrow());
    }
    KJ_FAIL_REQUIRE("TRP-int-001: a request that is not known", uint16_t(request.which()));
  }

 private:
  void openBacking(const DiskToolFiles& files) {
    auto configs = request.getBacking();
    KJ_REQUIRE(configs.size() == files.backing.size(), "each backing file has an fd and a place");
    for (uint32_t i = 0; i < configs.size(); i++) {
      auto format = formatOf(configs[i].getFormat());
      auto contents =
          format == qcow2::ImageFormat::RAW ? Disk::Contents::BACKING : Disk::Contents::IMAGE;
      opened.add(kj::heap<WatchedFile>(files.backing[i], Disk::Access::READ_ONLY, contents, pulse));
      below.add(qcow2::ChainFile{*opened.back(), format, configs[i].getPath()});
    }
  }

  kj::Own<qcow2::Image> openWhole(qcow2::Access access) {
    kj::Vector<qcow2::ChainFile> chain;
    chain.add(qcow2::ChainFile{disk, qcow2::ImageFormat::QCOW2, request.getPath()});
    chain.addAll(below);
    return qcow2::openChain(chain, access);
  }

  // What lies below a new image has to be what it is said to be, whatever its size is for.
  uint64_t backingBytes() {
    if (below[0].format == qcow2::ImageFormat::RAW) return below[0].file.size();
    return qcow2::openChain(below, qcow2::Access::READ_ONLY)->size();
  }

  void create(DiskToolRequest::NewDisk::Reader wanted) {
    uint64_t bytes = wanted.getBytes();
    kj::StringPtr backingFormat = "";
    if (below.size() > 0) {
      uint64_t found = backingBytes();
      // A file's last sector may be cut short; the rest of it reads as zeroes.
      if (bytes == 0) bytes = (found + SECTOR - 1) / SECTOR * SECTOR;
      backingFormat = below[0].format == qcow2::ImageFormat::RAW ? "raw" : "qcow2";
    }
    qcow2::makeImage(disk, {bytes, wanted.getClusterBits(), wanted.getLazyRefcounts(),
                            wanted.getBackingName(), backingFormat});
    answer([&](Report::Builder report) { report.setCreated(bytes); });
  }

  qcow2::Header readHeader() {
    qcow2::AlignedBytes start(MOST_HEADER_BYTES);
    int error = readFully(disk, start.all(), 0);
    KJ_REQUIRE(error == 0, "TRP-blk-026: the qcow2 image cannot be read", strerror(-error));
    return qcow2::parseHeader(start.all(), disk.size(), qcow2::Access::READ_ONLY);
  }

  void info() {
    auto header = readHeader();
    bool isChain = below.size() > 0;
    if (isChain) openWhole(qcow2::Access::READ_ONLY);
    answer([&](Report::Builder report) {
      auto to = report.initInfo();
      to.setVersion(header.version);
      to.setBytes(header.size);
      to.setClusterBytes(header.geometry.clusterBytes());
      to.setRefcountBits(1u << header.geometry.refcountOrder);
      to.setSnapshots(header.snapshotCount);
      to.setIsDirty(header.isDirty());
      to.setIsCorrupt(header.incompatible & qcow2::INCOMPATIBLE_CORRUPT);
      to.setLazyRefcounts(header.hasLazyRefcounts());
      to.setCompression(header.compression == qcow2::Compression::ZLIB ? "zlib" : "zstd");
      to.setBitmaps(header.autoclear & qcow2::AUTOCLEAR_BITMAPS);
      to.setChainChecked(isChain);
      KJ_IF_MAYBE (name, header.backingName) {
        to.setHasBacking(true);
        to.setBackingName(*name);
      }
      KJ_IF_MAYBE (format, header.backingFormat) to.setBackingFormat(*format);
    });
  }

  void check(DiskToolRequest::Check::Reader wanted) {
    auto header = readHeader();
    auto repair = wanted.getRepairLeaks() ? qcow2::Repair::LEAKS : qcow2::Repair::NOTHING;
    auto result = qcow2::check(disk, header, repair,
                               [this](uint64_t done, uint64_t total) { pulse.reach(done, total); });
    answer([&](Report::Builder report) {
      auto to = report.initCheck();
      to.setErrors(result.errors);
      to.setLeaks(result.leaks);
      to.setRepairedLeaks(result.repairedLeaks);
      to.setTotalClusters(result.totalClusters);
      to.setAllocatedClusters(result.allocatedClusters);
      to.setCompressedClusters(result.compressedClusters);
      to.setEndOffset(result.endOffset);
      to.setClusterBytes(header.geometry.clusterBytes());
      to.setIsDirty(header.isDirty());
      auto findings = to.initFindings(result.findings.size());
      for (size_t i = 0; i < findings.size(); i++) {
        const auto& found = result.findings[i];
        findings[i].setFlaw(static_cast<DiskCheck::Flaw>(found.flaw));
        findings[i].setCluster(found.cluster);
        findings[i].setCounted(found.counted);
        findings[i].setUsed(found.used);
      }
    });
  }

  void grow(uint64_t bytes) {
    auto image = openWhole(qcow2::Access::READ_WRITE);
    uint64_t before = image->size();
    if (bytes < before) {
      kj::throwFatalException(kj::Exception(
          kj::Exception::Type::FAILED, __FILE__, __LINE__,
          kj::str("TRP-disk-103: a qcow2 image can be made larger, not smaller; this one has ",
                  before, " bytes")));
    }
    int error = bytes == before ? 0 : image->grow(bytes);
    int closed = image->close();
    if (error == 0) error = closed;
    KJ_REQUIRE(error == 0, "TRP-disk-102: the image cannot be written", strerror(-error));
    answer([&](Report::Builder report) { report.setGrown(before); });
  }

  template <typename Fill>
  void answer(Fill&& fill) {
    capnp::MallocMessageBuilder message;
    fill(message.initRoot<Report>());
    send(message);
  }

  DiskToolRequest::Reader request;
  Send send;
  Pulse pulse;
  WatchedFile disk;
  kj::Vector<kj::Own<WatchedFile>> opened;
  kj::Vector<qcow2::ChainFile> below;
};

DiskTool::DiskTool(DiskToolRequest::Reader request, const DiskToolFiles& files, Send send)
    : work(kj::heap<Work>(request, files, kj::mv(send))) {}

DiskTool::~DiskTool() noexcept(false) {}

void DiskTool::serve() {
  work->serve();
}

}  // namespace troupe::blk
