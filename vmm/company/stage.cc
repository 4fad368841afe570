#include "vmm/company/stage.h"

#include "vmm/policy/profile_override.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

bool onlyReport(const Stage::Choices& choices) {
  KJ_IF_MAYBE (watch, choices.watch) {
    return watch->onlyReports();
  }
  return false;
}

// Without a folder nothing is started and nothing is waited for.
ActorProfiles profilesFor(kj::AsyncIoContext& io, const Stage::Choices& choices) {
  KJ_IF_MAYBE (folder, choices.profileDir) {
    auto compiler = openPolicyProgram(choices.programs);
    return overrideProfiles(io, compiler, *folder).wait(io.waitScope);
  }
  return {};
}

}  // namespace

Stage::Stage(kj::AsyncIoContext& io, const Choices& choices)
    : startDeadline(choices.startDeadline),
      jail(choices.jail),
      profileDir(choices.profileDir.map([](kj::StringPtr dir) { return kj::heapString(dir); })),
      programs(openPrograms(choices.programs)),
      profiles(profilesFor(io, choices)),
      launcher(io.unixEventPort, jail, choices.faults, choices.watch),
      hostsMany(choices.hostsMany),
      onlyReports(onlyReport(choices)),
      counts(choices.watch != nullptr && !onlyReports) {
  if (onlyReports && jail == sandbox::Jail::OFF) {
    UserError(codes::NOT_A_CHOICE,
              kj::str("--jail off leaves nothing to learn: there are no filters to report"))
        .raise();
  }
}

}  // namespace troupe
