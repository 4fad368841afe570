#include "vmm/policy/actor_profiles.h"

#include <kj/debug.h>

#include "broker/broker_profile.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/blk/blk_profile.h"
#include "devices/console/console_profile.h"
#include "devices/console/serial_profile.h"
#include "devices/net/net_profile.h"
#include "devices/recorder/recorder_profile.h"
#include "devices/rng/rng_profile.h"
#include "devices/vsock/vsock_profile.h"
#include "vmm/front/front_profile.h"
#include "vmm/front/realm_front_profile.h"
#include "vmm/passt/passt_profile.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

const sandbox::Profile* const PLAYERS[] = {
    &BROKER_PROFILE,  &BLK_PROFILE,   &CONSOLE_PROFILE,  &SERIAL_PROFILE,
    &RNG_PROFILE,     &FRONT_PROFILE, &NET_PROFILE,      &PASST_PROFILE,
    &BALLOON_PROFILE, &VSOCK_PROFILE, &RECORDER_PROFILE, &REALM_FRONT_PROFILE};

const sandbox::Profile& builtInAt(kj::StringPtr path) {
  for (auto profile : PLAYERS) {
    if (path == profile->source) return *profile;
  }
  KJ_FAIL_REQUIRE("TRP-jail-031: the compiler of profiles sent one that replaces none");
}

[[noreturn]] void refuse(kj::StringPtr folder, capnp::List<capnp::Text>::Reader errors) {
  UserError error(codes::PROFILE_BROKEN, escape(errors[0]));
  if (errors.size() > 1) {
    error.advice("more", kj::str(errors.size() - 1, " other error(s) after it"));
  }
  error.advice("see", kj::str("troupe policy check --profile-dir ", shellWord(folder))).raise();
}

}  // namespace

kj::ArrayPtr<const sandbox::Profile* const> playerProfiles() {
  return PLAYERS;
}

ActorProfiles::ActorProfiles(kj::StringPtr folder, CompileResult::Reader result,
                             kj::Vector<ProfileText> texts)
    : sources(kj::mv(texts)) {
  if (result.getErrors().size() > 0) refuse(folder, result.getErrors());
  auto profiles = result.getProfiles();
  KJ_REQUIRE(profiles.size() > 0 && profiles.size() <= kj::size(PLAYERS),
             "TRP-jail-031: the compiler of profiles sent an odd number of them");
  for (auto profile : profiles) {
    auto& builtIn = builtInAt(profile.getPath());
    KJ_REQUIRE(&of(builtIn) == &builtIn, "TRP-jail-031: the compiler of profiles sent one twice");
    auto loaded = kj::heap<sandbox::LoadedProfile>(profile);
    sandbox::requireSameFds(loaded->profile(), builtIn);
    overridden.add(Overridden{kj::heapString(builtIn.source), kj::mv(loaded)});
  }
}

kj::Maybe<const sandbox::Profile&> builtInOf(kj::StringPtr actor) {
  for (auto profile : PLAYERS) {
    if (actor == profile->actor) return *profile;
  }
  return nullptr;
}

const sandbox::Profile& ActorProfiles::of(const sandbox::Profile& builtIn) const {
  for (auto& one : overridden) {
    if (one.path == builtIn.source) return one.loaded->profile();
  }
  return builtIn;
}

}  // namespace troupe
