#include "sandbox/attest_subject.h"
#include "sandbox/limits/cgroup.h"

namespace troupe::sandbox {

void attestCgroup(Subject& subject) {
  KJ_IF_MAYBE (group, subject.options.cgroup) {
    constexpr kj::StringPtr LAYER = "control group"_kj;
    for (auto& setting : group->inForce())
      subject.seen(LAYER, setting.file, " = ", setting.value);
    for (auto& difference : group->differences(subject.pid))
      subject.differ(LAYER, difference);
  }
}

}  // namespace troupe::sandbox
