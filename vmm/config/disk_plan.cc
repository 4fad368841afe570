#include "vmm/config/disk_plan.h"

#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr REQUESTS = "iops"_kj;

bool isName(kj::StringPtr text) {
  bool sound = text.size() <= DISK_ID_BYTES;
  for (char c : text)
    sound = sound && c > ' ' && c < 0x7f;
  return sound;
}

void checkName(DiskConfig::Reader disk, kj::StringPtr what, kj::StringPtr text) {
  if (isName(text)) return;
  UserError(codes::DISK_ID, kj::str("--disk ", quote(disk.getPath()), ": ", what, " ", quote(text),
                                    " is not possible; it has at most ", DISK_ID_BYTES,
                                    " printable ASCII characters without spaces"))
      .raise();
}

kj::String planId(DiskConfig::Reader disk, uint32_t index) {
  if (disk.getId().size() == 0) return kj::str("disk", index);
  checkName(disk, "id", disk.getId());
  return kj::heapString(disk.getId());
}

RatePlan planRate(DiskConfig::Reader disk) {
  RatePlan plan;
  if (disk.getRate().size() == 0) return plan;
  KJ_IF_MAYBE (why, parseRate(disk.getRate(), REQUESTS, plan)) {
    UserError(codes::DISK_OPTION,
              kj::str("--disk ", quote(disk.getPath()), ": rate=", escape(disk.getRate()),
                      " is not possible: ", *why, "; ", rateRule(REQUESTS)))
        .raise();
  }
  return plan;
}

DiskFormat planFormat(DiskConfig::Reader disk, kj::StringPtr what, kj::StringPtr format) {
  if (format == "raw") return DiskFormat::RAW;
  if (format == "qcow2") return DiskFormat::QCOW2;
  constexpr kj::StringPtr FORMATS[] = {"raw"_kj, "qcow2"_kj};
  UserError(codes::NOT_A_CHOICE,
            kj::str("--disk ", quote(disk.getPath()), ": ", what, " ", quote(format),
                    " is not known; expected raw or qcow2", didYouMean(format, FORMATS)))
      .raise();
}

BackingPlan planBackingFile(DiskConfig::Reader disk, kj::StringPtr text) {
  KJ_IF_MAYBE (colon, text.findLast(':')) {
    auto format =
        planFormat(disk, kj::str("backing=", escape(text), ": the format"), text.slice(*colon + 1));
    if (*colon > 0) return {kj::heapString(text.begin(), *colon), format};
  }
  UserError(codes::DISK_OPTION,
            kj::str("--disk ", quote(disk.getPath()), ": backing=", escape(text),
                    " is not possible; expected backing=PATH:raw or backing=PATH:qcow2"))
      .raise();
}

kj::Array<BackingPlan> planBacking(DiskConfig::Reader disk, DiskFormat format) {
  auto texts = disk.getBacking();
  if (texts.size() > 0 && format == DiskFormat::RAW) {
    UserError(codes::DISK_OPTION,
              kj::str("--disk ", quote(disk.getPath()), ": a raw disk has no backing file; ",
                      "backing= goes with format=qcow2"))
        .raise();
  }
  if (texts.size() > MOST_BACKING) {
    UserError(codes::DISK_OPTION,
              kj::str("--disk ", quote(disk.getPath()), ": ", texts.size(),
                      " backing files are given; a disk has at most ", MOST_BACKING))
        .raise();
  }
  kj::Vector<BackingPlan> backing;
  for (auto text : texts) {
    if (backing.size() > 0 && backing.back().format == DiskFormat::RAW) {
      UserError(
          codes::DISK_OPTION,
          kj::str("--disk ", quote(disk.getPath()), ": backing file ", quote(backing.back().path),
                  " is raw, so nothing lies below it; ", quote(text), " comes too many"))
          .raise();
    }
    backing.add(planBackingFile(disk, text));
  }
  return backing.releaseAsArray();
}

DiskPlan planDisk(DiskConfig::Reader disk, uint32_t index) {
  if (disk.getPath().size() == 0) {
    UserError(codes::DISK_OPTION,
              kj::str("disk ", index, " has no path; expected --disk PATH[,ro][,id=ID]…"))
        .raise();
  }
  auto format = planFormat(disk, "format", disk.getFormat());
  if (disk.getQueues() < 1 || disk.getQueues() > MOST_QUEUES) {
    UserError(codes::DISK_OPTION,
              kj::str("--disk ", quote(disk.getPath()), ": queues=", disk.getQueues(),
                      " is out of range; a disk has 1 to ", MOST_QUEUES, " queues"))
        .raise();
  }
  if (disk.getRo() && disk.getVolatile()) {
    UserError(codes::DISK_OPTION,
              kj::str("--disk ", quote(disk.getPath()), ": ro and volatile exclude each other"))
        .raise();
  }
  auto id = planId(disk, index);
  checkName(disk, "serial", disk.getSerial());
  auto serial = kj::heapString(disk.getSerial().size() == 0 ? id : disk.getSerial());
  return {kj::heapString(disk.getPath()),
          kj::mv(id),
          kj::mv(serial),
          disk.getRo() || disk.getVolatile(),
          disk.getDirect(),
          disk.getQueues(),
          planRate(disk),
          format,
          planBacking(disk, format),
          disk.getVolatile()};
}

}  // namespace

kj::Array<DiskPlan> planDisks(capnp::List<DiskConfig>::Reader configs) {
  if (configs.size() > MOST_DISKS) {
    UserError(codes::TOO_MANY_DISKS,
              kj::str(configs.size(), " disks are asked for; a VM has at most ", MOST_DISKS))
        .raise();
  }
  kj::Vector<DiskPlan> disks;
  for (auto config : configs) {
    auto disk = planDisk(config, disks.size());
    for (auto& earlier : disks) {
      if (earlier.id == disk.id) {
        UserError(codes::DISK_ID,
                  kj::str("disks ", quote(earlier.path), " and ", quote(disk.path),
                          " have the same id ", quote(disk.id), "; an id names one disk"))
            .raise();
      }
    }
    disks.add(kj::mv(disk));
  }
  return disks.releaseAsArray();
}

void spellOutDisks(capnp::List<DiskConfig>::Builder disks) {
  uint32_t index = 0;
  for (auto disk : disks) {
    disk.setId(planId(disk.asReader(), index++));
    disk.setFormat(kj::str(disk.asReader().getFormat()));
  }
}

}  // namespace troupe
