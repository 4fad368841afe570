#include "sandbox/landlock_rules.h"

#include <errno.h>
#include <kj/debug.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/errno_text.h"

namespace troupe::sandbox {
namespace {

// struct landlock_ruleset_attr as of ABI 6; Debian 12's header ends after the first word.
struct LandlockRules {
  uint64_t fileSystem;
  uint64_t network;
  uint64_t scoped;
};

// Rights to files by the ABI that brought them.
constexpr uint64_t FILES_ABI_1 = (1 << 13) - 1;
constexpr uint64_t REFER = 1 << 13;         // ABI 2; ABI 1 denies it always
constexpr uint64_t TRUNCATE = 1 << 14;      // ABI 3
constexpr uint64_t DEVICE_IOCTL = 1 << 15;  // ABI 5
constexpr uint64_t TCP_BIND_AND_CONNECT = 3;
constexpr uint64_t ABSTRACT_SOCKETS = 1;
constexpr uint64_t SIGNALS = 2;

LandlockRules rulesOf(const LayerPlan& plan, int abi) {
  auto denied = [&](LandlockAccess access, uint64_t rights) {
    return plan.landlock[size_t(access)] ? rights : 0;
  };
  return {denied(LandlockAccess::FILES, abi >= 2 ? FILES_ABI_1 | REFER : FILES_ABI_1) |
              denied(LandlockAccess::TRUNCATE, TRUNCATE) |
              denied(LandlockAccess::DEVICE_IOCTLS, DEVICE_IOCTL),
          denied(LandlockAccess::TCP, TCP_BIND_AND_CONNECT),
          denied(LandlockAccess::ABSTRACT_SOCKETS, ABSTRACT_SOCKETS) |
              denied(LandlockAccess::SIGNALS, SIGNALS)};
}

}  // namespace

kj::Maybe<kj::AutoCloseFd> makeLandlockRules(const LayerPlan& plan, int abi, kj::StringPtr name,
                                             int executable) {
  LandlockRules rules = rulesOf(plan, abi);
  if ((rules.fileSystem | rules.network | rules.scoped) == 0) return nullptr;
  size_t size = abi >= 6 ? sizeof(rules) : abi >= 4 ? 16 : 8;
  auto need = [&](long result, kj::StringPtr call) {
    KJ_REQUIRE(result >= 0, kj::str("TRP-jail-009: no landlock rules can be made for ", name, ": ",
                                    call, ": ", errnoText(errno)));
    return result;
  };
  long fd = syscall(SYS_landlock_create_ruleset, &rules, size, 0);
  kj::AutoCloseFd ruleset(need(fd, "landlock_create_ruleset"));
  if (!plan.landlock[size_t(LandlockAccess::FILES)]) return kj::mv(ruleset);
  landlock_path_beneath_attr program = {};
  program.allowed_access = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE;
  program.parent_fd = executable;
  long result = syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &program, 0);
  // EBADFD: the program is no file of a file system, and then none of this concerns it.
  if (result < 0 && errno != EBADFD) need(result, "landlock_add_rule");
  return kj::mv(ruleset);
}

}  // namespace troupe::sandbox
