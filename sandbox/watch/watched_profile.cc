#include "sandbox/watch/watched_profile.h"

#include <errno.h>
#include <kj/debug.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

#include <cstddef>

namespace troupe::sandbox {
namespace {

constexpr uint32_t X32_BIT = 0x40000000;
constexpr uint32_t CLONE3 = 435;

sock_filter load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, uint32_t(offset));
}

sock_filter answer(uint32_t value) {
  return BPF_STMT(BPF_RET | BPF_K, value);
}

// Kills calls by another convention than x86_64's and goes on with the others.
void addConventionCheck(kj::Vector<sock_filter>& program) {
  program.add(load(offsetof(seccomp_data, arch)));
  program.add(sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
  program.add(answer(SECCOMP_RET_KILL_PROCESS));
  program.add(load(offsetof(seccomp_data, nr)));
  program.add(sock_filter BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
  program.add(answer(SECCOMP_RET_KILL_PROCESS));
}

bool isDeath(uint32_t answer) {
  uint32_t action = answer & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_KILL_PROCESS || action == SECCOMP_RET_KILL_THREAD;
}

kj::Array<sock_filter> watch(const ProfileFilter& filter, WatchMode mode, uint16_t number) {
  kj::Vector<sock_filter> program;
  uint32_t stop = SECCOMP_RET_TRACE | number;
  if (mode != WatchMode::COUNT) addConventionCheck(program);
  for (const sock_filter& step : kj::arrayPtr(filter.program, filter.length)) {
    sock_filter copy = step;
    if (step.code == (BPF_RET | BPF_K)) {
      bool changes = mode == WatchMode::COUNT ? step.k == SECCOMP_RET_ALLOW : isDeath(step.k);
      if (changes) copy.k = stop;
    }
    program.add(copy);
  }
  KJ_REQUIRE(program.size() <= BPF_MAXINSNS, "the filter has no room for being watched",
             filter.stage, program.size());
  return program.releaseAsArray();
}

kj::Array<sock_filter> stopAlways(uint16_t number) {
  kj::Vector<sock_filter> program;
  addConventionCheck(program);
  // As in every profile: a filter cannot see its arguments, and glibc goes on with clone.
  program.add(sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLONE3, 0, 1));
  program.add(answer(SECCOMP_RET_ERRNO | ENOSYS));
  program.add(answer(SECCOMP_RET_TRACE | number));
  return program.releaseAsArray();
}

}  // namespace

WatchedProfile::WatchedProfile(const Profile& original, WatchMode mode)
    : original(original), watched(original) {
  for (const ProfileFilter& filter : kj::arrayPtr(original.filters, original.filterCount)) {
    uint16_t number = filters.size() + 1;
    bool all = mode == WatchMode::REPORT_ALL;
    add(filter.stage, all ? stopAlways(number) : watch(filter, mode, number));
  }
  watched.filters = filters.begin();
  watched.filterCount = filters.size();
}

void WatchedProfile::add(const char* stage, kj::Array<sock_filter> program) {
  filters.add(ProfileFilter{stage, program.begin(), static_cast<uint16_t>(program.size())});
  programs.add(kj::mv(program));
}

}  // namespace troupe::sandbox
