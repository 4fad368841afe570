#include "vmm/config/record_plan.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t LEAST_LIMIT = 1 << 20;
constexpr uint64_t MOST_LIMIT = uint64_t(4) << 30;

uint64_t planLimit(kj::StringPtr text) {
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    if (*bytes >= LEAST_LIMIT && *bytes <= MOST_LIMIT) return *bytes & ~uint64_t(4095);
  }
  UserError(codes::RECORD_LIMIT,
            kj::str("--record-limit ", quote(text), " is not possible; a recording has at least ",
                    sizeText(LEAST_LIMIT), " and at most ", sizeText(MOST_LIMIT), ": 256M"))
      .raise();
}

RecordPlan planOne(kj::StringPtr text, kj::ArrayPtr<const kj::String> recordable) {
  kj::Maybe<size_t> split = text.findFirst('=');
  size_t at = split.orDefault(0);
  if (at == 0 || at + 1 == text.size()) {
    UserError(codes::RECORD_OPTION,
              kj::str("--record ", quote(text), " is not DEVICE=FILE, such as blk0=disk.rec"))
        .raise();
  }
  auto device = kj::heapString(text.slice(0, at));
  for (auto& name : recordable) {
    if (name == device) return {kj::mv(device), kj::heapString(text.slice(at + 1))};
  }
  UserError(
      codes::RECORD_DEVICE,
      kj::str("--record: the VM has no device ", quote(device), " that can be recorded; it has ",
              recordable.size() == 0 ? kj::str("none") : kj::strArray(recordable, ", "),
              "; of devices, only a console with replay=off cannot"))
      .raise();
}

}  // namespace

RecordPlans planRecords(VmConfig::Reader config, kj::ArrayPtr<const kj::String> recordable) {
  RecordPlans plans;
  plans.limitBytes = planLimit(config.getRecordLimit());
  plans.devices = KJ_MAP(text, config.getRecords()) {
    return planOne(text, recordable);
  };
  for (auto& one : plans.devices) {
    for (auto& other : plans.devices) {
      if (&one == &other || (one.device != other.device && one.path != other.path)) continue;
      UserError(codes::GIVEN_TWICE,
                kj::str("--record names ",
                        one.device == other.device ? quote(one.device) : quote(one.path),
                        " twice; each device is recorded once, in a file of its own"))
          .raise();
    }
  }
  return plans;
}

}  // namespace troupe
