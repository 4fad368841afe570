// Nobody but the broker can take memory out of the guest's RAM. No seal is in the way of holes, so
// the filters have to be: asked here for every stage and thread of every actor that plays in a VM.
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>
#include <string>
#include <vector>

#include "broker/broker_profile.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/blk/blk_profile.h"
#include "devices/console/console_profile.h"
#include "devices/console/serial_profile.h"
#include "devices/net/net_profile.h"
#include "devices/rng/rng_profile.h"
#include "devices/vsock/vsock_profile.h"
#include "sandbox/filter_answer.h"
#include "vmm/front/front_profile.h"

namespace troupe {
namespace {

const sandbox::Profile* const ALL_BUT_BROKER[] = {&BALLOON_PROFILE, &BLK_PROFILE,  &CONSOLE_PROFILE,
                                                  &FRONT_PROFILE,   &NET_PROFILE,  &RNG_PROFILE,
                                                  &SERIAL_PROFILE,  &VSOCK_PROFILE};

seccomp_data call(long number, std::vector<uint64_t> arguments) {
  seccomp_data data = {};
  data.nr = static_cast<int>(number);
  data.arch = AUDIT_ARCH_X86_64;
  for (size_t i = 0; i < arguments.size(); i++)
    data.args[i] = arguments[i];
  return data;
}

bool allows(const sandbox::ProfileFilter& filter, const seccomp_data& data) {
  return (sandbox::answerOf(filter, data) & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ALLOW;
}

// Numbers at which the profile has guest RAM.
std::vector<uint64_t> ramFds(const sandbox::Profile& profile) {
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < profile.fdCount; i++)
    if (strncmp(profile.fds[i].name, "ram", 3) == 0) numbers.push_back(profile.fds[i].number);
  return numbers;
}

constexpr uint64_t FALLOCATE_MODES[] = {0,
                                        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                        FALLOC_FL_ZERO_RANGE,
                                        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                        FALLOC_FL_COLLAPSE_RANGE,
                                        FALLOC_FL_INSERT_RANGE,
                                        FALLOC_FL_UNSHARE_RANGE};

TEST(RamHoles, NoActorButTheBrokerMakesThem) {
  for (auto profile : ALL_BUT_BROKER) {
    for (size_t i = 0; i < profile->filterCount; i++) {
      auto& filter = profile->filters[i];
      std::string where = std::string(profile->actor) + " in " + filter.stage;
      for (uint64_t fd : ramFds(*profile))
        for (uint64_t mode : FALLOCATE_MODES)
          EXPECT_FALSE(allows(filter, call(SYS_fallocate, {fd, mode, 0, 4096}))) << where;
      EXPECT_FALSE(allows(filter, call(SYS_madvise, {1 << 20, 4096, MADV_REMOVE}))) << where;
      EXPECT_FALSE(allows(filter, call(SYS_process_madvise, {3, 0, 1, MADV_REMOVE, 0}))) << where;
    }
  }
}

// After `ready` there is not even an fd by which it could be tried.
TEST(RamHoles, NoActorButTheBrokerKeepsAnFdOfRam) {
  for (auto profile : ALL_BUT_BROKER) {
    for (size_t i = 0; i < profile->fdCount; i++) {
      if (strncmp(profile->fds[i].name, "ram", 3) != 0) continue;
      EXPECT_TRUE(profile->fds[i].closed) << profile->actor;
    }
  }
}

TEST(RamHoles, TheBrokerMakesHolesAndDoesNothingElseToTheFile) {
  auto& broker = BROKER_PROFILE;
  bool found = false;
  for (size_t i = 0; i < broker.filterCount; i++) {
    auto& filter = broker.filters[i];
    if (strcmp(filter.stage, "run") != 0 && strcmp(filter.stage, "ready") != 0) continue;
    found = true;
    for (size_t k = 0; k < broker.fdCount; k++) {
      auto& fd = broker.fds[k];
      bool isWritableRam = strcmp(fd.name, "ram") == 0;
      for (uint64_t mode : FALLOCATE_MODES) {
        bool isHole = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
        EXPECT_EQ(allows(filter, call(SYS_fallocate, {fd.number, mode, 0, 4096})),
                  isWritableRam && isHole)
            << fd.name << " " << mode;
      }
    }
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace troupe
