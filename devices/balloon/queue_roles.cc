#include "devices/balloon/queue_roles.h"

#include "devices/balloon/wire.h"

namespace troupe::balloon {
namespace {

bool wasNegotiated(Role role, uint64_t features) {
  switch (role) {
    case Role::INFLATE:
    case Role::DEFLATE:
      return true;
    case Role::STATISTICS:
      return features & F_STATS_VQ;
    case Role::FREE_PAGE_HINT:
      return features & F_FREE_PAGE_HINT;
    case Role::REPORTING:
      return features & F_PAGE_REPORTING;
  }
  return false;
}

}  // namespace

kj::Maybe<Role> roleOf(uint16_t index, uint64_t features, uint32_t enabled) {
  uint32_t fixed = 0;  // a bit for each number of §5.5.2 that is in use
  uint32_t negotiated = 0;
  Role counted[ROLE_COUNT];
  for (uint16_t i = 0; i < ROLE_COUNT; i++) {
    if (!wasNegotiated(Role(i), features)) continue;
    fixed |= 1u << i;
    counted[negotiated++] = Role(i);
  }
  bool countsOn = enabled != fixed && enabled == (1u << negotiated) - 1;
  if (countsOn) {
    if (index < negotiated) return counted[index];
    return nullptr;
  }
  if (index < ROLE_COUNT && (fixed & 1u << index)) return Role(index);
  return nullptr;
}

}  // namespace troupe::balloon
