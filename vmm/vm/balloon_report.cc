#include "vmm/vm/balloon_report.h"

#include <kj/common.h>
#include <kj/string.h>

#include "devices/balloon/wire.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

using balloon::PAGE_BYTES;

constexpr kj::uint MOST_STATISTICS = 64;

struct KnownStatistic {
  kj::StringPtr name;
  bool isBytes;
};

// By their tags: §5.5.6.4, and what Linux has added since.
constexpr KnownStatistic KNOWN[] = {
    {"swapped-in"_kj, true},        {"swapped-out"_kj, true},   {"major-faults"_kj, false},
    {"minor-faults"_kj, false},     {"free"_kj, true},          {"total"_kj, true},
    {"available"_kj, true},         {"disk-caches"_kj, true},   {"hugetlb-allocations"_kj, false},
    {"hugetlb-failures"_kj, false}, {"oom-kills"_kj, false},    {"allocation-stalls"_kj, false},
    {"async-scans"_kj, false},      {"direct-scans"_kj, false}, {"async-reclaims"_kj, false},
    {"direct-reclaims"_kj, false},
};

void describe(BalloonStatistic::Reader from, MemoryStatistic::Builder to) {
  to.setValue(from.getValue());
  to.setTag(from.getTag());
  if (from.getTag() < kj::size(KNOWN)) {
    auto& known = KNOWN[from.getTag()];
    to.setName(known.name);
    to.setIsBytes(known.isBytes);
  } else {
    to.setName(kj::str("tag-", from.getTag()));
  }
}

uint64_t bytesOf(uint32_t pages, uint64_t memoryBytes) {
  return kj::min(pages * PAGE_BYTES, memoryBytes);
}

}  // namespace

uint32_t balloonPages(uint64_t guestBytes, uint64_t memoryBytes) {
  if (guestBytes > memoryBytes) {
    UserError(codes::BALLOON_SIZE,
              kj::str("the guest cannot be left ", sizeText(guestBytes), "; it was started with ",
                      sizeText(memoryBytes), " of RAM"))
        .raise();
  }
  if (guestBytes < kj::min(LEAST_GUEST_BYTES, memoryBytes)) {
    UserError(codes::BALLOON_SIZE,
              kj::str("the guest cannot be left ", sizeText(guestBytes), "; below ",
                      sizeText(LEAST_GUEST_BYTES), " no kernel goes on"))
        .raise();
  }
  if (guestBytes % PAGE_BYTES != 0) {
    UserError(codes::BALLOON_SIZE, kj::str("the guest cannot be left ", guestBytes,
                                           " bytes; memory comes in pages of 4096 bytes"))
        .raise();
  }
  uint64_t pages = (memoryBytes - guestBytes) / PAGE_BYTES;
  return static_cast<uint32_t>(kj::min(pages, uint64_t(UINT32_MAX)));
}

void writeBalloonStatus(BalloonReport::Reader report, uint64_t memoryBytes,
                        BalloonStatus::Builder status) {
  status.setMemoryBytes(memoryBytes);
  status.setTargetBytes(bytesOf(report.getTargetPages(), memoryBytes));
  status.setActualBytes(bytesOf(report.getActualPages(), memoryBytes));
  status.setHasDriver(report.getFeatures() != 0);  // VERSION_1 at least
  status.setGivenBackBytes(report.getGivenBackBytes());
  status.setFreePageBytes(report.getFreePageBytes());
  status.setOffersStatistics(report.getFeatures() & balloon::F_STATS_VQ);
  if (!report.getHasStatistics()) return;
  status.setHasStatistics(true);
  status.setStatisticsAgeMs(report.getStatisticsAgeMs());
  auto from = report.getStatistics();
  auto list = status.initStatistics(kj::min(from.size(), MOST_STATISTICS));
  for (kj::uint i = 0; i < list.size(); i++)
    describe(from[i], list[i]);
}

bool canHintFreePages(BalloonReport::Reader report) {
  return report.getFeatures() & balloon::F_FREE_PAGE_HINT;
}

}  // namespace troupe
