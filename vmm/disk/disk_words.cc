#include "vmm/disk/disk_words.h"

#include <errno.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t SECTOR = 512;
constexpr uint64_t MOST_DISK_BYTES = 1ull << 56;  // far beyond what a file system takes
constexpr kj::StringPtr FORMATS[] = {"raw"_kj, "qcow2"_kj};

kj::Maybe<DiskFormat> formatNamed(kj::StringPtr text) {
  if (text == "raw") return DiskFormat::RAW;
  if (text == "qcow2") return DiskFormat::QCOW2;
  return nullptr;
}

DiskFormat parseFormat(kj::StringPtr text) {
  KJ_IF_MAYBE (format, formatNamed(text)) return *format;
  UserError(codes::NOT_A_CHOICE,
            kj::str("--format ", quote(text), " is not known; expected raw or qcow2",
                    didYouMean(text, FORMATS)))
      .raise();
}

BackingPlan parseBacking(kj::StringPtr text) {
  KJ_IF_MAYBE (colon, text.findLast(':')) {
    KJ_IF_MAYBE (format, formatNamed(text.slice(*colon + 1))) {
      if (*colon > 0) return {kj::heapString(text.begin(), *colon), *format};
    }
  }
  UserError(codes::DISK_OPTION,
            kj::str("--backing ", quote(text),
                    " is not possible; expected PATH:raw or PATH:qcow2: its format is said, too"))
      .raise();
}

void checkChain(kj::StringPtr path, DiskFormat format, kj::ArrayPtr<const BackingPlan> backing) {
  if (backing.size() == 0) return;
  if (format == DiskFormat::RAW) {
    UserError(codes::DISK_CHOICE,
              kj::str("disk ", quote(path), ": a raw disk has no backing file; ",
                      "--backing goes with --format qcow2"))
        .raise();
  }
  if (backing.size() > MOST_BACKING) {
    UserError(codes::DISK_OPTION,
              kj::str("disk ", quote(path), ": --backing is given ", backing.size(),
                      " times; a disk has at most ", MOST_BACKING, " files below it"))
        .raise();
  }
  for (size_t i = 0; i + 1 < backing.size(); i++) {
    if (backing[i].format != DiskFormat::RAW) continue;
    UserError(codes::DISK_OPTION,
              kj::str("disk ", quote(path), ": backing file ", quote(backing[i].path),
                      " is raw, so nothing lies below it; ", quote(backing[i + 1].path),
                      " comes too many"))
        .raise();
  }
}

}  // namespace

void addFormatOption(CommandLine& line, DiskWords& words) {
  line.add({"format", "raw|qcow2", "what is in the file; it is said, never guessed", false,
            [&words](kj::StringPtr value) { words.format = parseFormat(value); }});
}

void addBackingOption(CommandLine& line, DiskWords& words) {
  line.add({"backing", "PATH:FORMAT", "the next file below the image; from top to bottom", true,
            [&words](kj::StringPtr value) { words.backing.add(parseBacking(value)); }});
}

DiskPlan planNamedDisk(kj::StringPtr path, DiskWords&& words, bool readOnly) {
  DiskPlan plan = {};
  KJ_IF_MAYBE (format, words.format) {
    plan.format = *format;
  } else {
    UserError(codes::DISK_FORMAT,
              kj::str("what is in ", quote(path), "? give --format raw or --format qcow2: a ",
                      "format is never guessed, since whoever wrote the file could choose it"))
        .raise();
  }
  checkChain(path, plan.format, words.backing);
  plan.path = kj::heapString(path);
  plan.readOnly = readOnly;
  plan.queues = 1;
  plan.backing = words.backing.releaseAsArray();
  return plan;
}

uint64_t parseDiskSize(kj::StringPtr text) {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::DISK_BYTES, kj::str("a disk cannot have the size ", quote(text), ": ", why))
        .raise();
  };
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    if (*bytes == 0 || *bytes % SECTOR != 0) {
      refuse(kj::str("it is a multiple of 512 bytes, at least 512; the next one is ",
                     (*bytes / SECTOR + 1) * SECTOR));
    }
    if (*bytes > MOST_DISK_BYTES) refuse("it has at most 65536T");
    return *bytes;
  }
  refuse("expected a number of bytes, or one with K, M, G or T: 20G");
  KJ_UNREACHABLE;
}

void settle(const OpenFile& file) {
  if (fdatasync(file.fd) == 0) return;
  UserError(codes::DISK_NOT_MADE,
            kj::str("what was written to the disk cannot be taken there: ", errnoText(errno)))
      .raise();
}

kj::StringPtr formatName(DiskFormat format) {
  return format == DiskFormat::RAW ? "raw"_kj : "qcow2"_kj;
}

}  // namespace troupe
