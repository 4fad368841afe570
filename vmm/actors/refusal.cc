#include "vmm/actors/refusal.h"

#include <ctype.h>
#include <string.h>
#include <sys/resource.h>

#include "sandbox/limits/limit_report.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr kj::StringPtr UNLESS = "unless somebody has broken into it: "_kj;

kj::Array<sandbox::MetLimit> limitsMet(Actor& actor) {
  KJ_IF_MAYBE (status, actor.waitStatus()) {
    return sandbox::limitsMet(
        actor.profile(), *status, actor.child().lastUse(),
        actor.group().map([](const sandbox::ActorCgroup& group) { return group.account(); }));
  }
  return nullptr;
}

// As a word of a shell's command line.
kj::String shellWord(kj::StringPtr text) {
  for (char c : text) {
    bool plain = isalnum(static_cast<unsigned char>(c)) || strchr("/._-+,:@", c) != nullptr;
    if (!plain) return quote(text);
  }
  return kj::str(text);
}

void addSource(UserError& error, Actor& actor) {
  kj::String folder;
  KJ_IF_MAYBE (dir, actor.profileDir()) {
    folder = kj::str(" --profile-dir ", shellWord(*dir));
  }
  error.advice("see", kj::str(actor.profile().source, "; `troupe policy show", folder, " ",
                              actor.profile().actor, "`"));
}

void addRemedy(UserError& error, Actor& actor, kj::StringPtr remedy) {
  if (remedy.size() == 0) return;
  error.advice("mend", kj::str(UNLESS, "write into ", actor.profile().source, ": ", remedy));
}

kj::Maybe<UserError> explainCall(Actor& actor, kj::StringPtr consequence) {
  KJ_IF_MAYBE (refused, actor.child().refusedCall()) {
    UserError error(codes::CALL_REFUSED,
                    kj::str(consequence, ": its jail allows no such system call and ended it"));
    error.cause(kj::str("in stage ", refused->stage, " it called ", refused->call));
    for (auto& line : actor.log().lastWords())
      error.cause(line);
    addSource(error, actor);
    if (refused->remedy.size() > 0) error.advice("mend", kj::str(UNLESS, refused->remedy));
    return kj::mv(error);
  }
  return nullptr;
}

kj::Maybe<UserError> explainLimit(Actor& actor, kj::StringPtr consequence) {
  for (auto& met : limitsMet(actor)) {
    if (!met.deadly) continue;
    UserError error(codes::LIMIT_MET,
                    kj::str(consequence, ": it met a limit of its jail, and the kernel ended it"));
    error.cause(met.what);
    for (auto& line : actor.log().lastWords())
      error.cause(line);
    addSource(error, actor);
    addRemedy(error, actor, met.remedy);
    return kj::mv(error);
  }
  return nullptr;
}

// The layers of a jail that refuse with an error and count nothing, by how that error reads.
struct Sign {
  kj::StringPtr words;
  int limit;  // RLIMIT_…, or -1
  kj::StringPtr meaning;
};

constexpr Sign SIGNS[] = {
    {"Permission denied"_kj, -1, "landlock, which denies every file, refuses with these words"_kj},
    {"Too many open files"_kj, RLIMIT_NOFILE, "its limit NOFILE refuses with these words: "_kj},
    {"Cannot allocate memory"_kj, RLIMIT_AS, "its limit AS refuses with these words: "_kj},
    {"bad_alloc"_kj, RLIMIT_AS, "its limit AS refuses so: "_kj},
    {"File too large"_kj, RLIMIT_FSIZE, "its limit FSIZE refuses with these words: "_kj},
};

kj::Maybe<uint64_t> valueOf(const sandbox::Profile& profile, int resource) {
  for (size_t i = 0; i < profile.limitCount; i++) {
    if (profile.limits[i].resource == resource) return profile.limits[i].value;
  }
  if (resource == RLIMIT_NOFILE) return sandbox::fileLimit(profile);
  return nullptr;
}

// What the words of an actor remind of. Nothing here is taken from them.
kj::Maybe<kj::String> explainWords(const sandbox::Profile& profile, kj::StringPtr words) {
  for (const Sign& sign : SIGNS) {
    if (strstr(words.cStr(), sign.words.cStr()) == nullptr) continue;
    if (sign.limit < 0) return kj::str(sign.meaning);
    KJ_IF_MAYBE (value, valueOf(profile, sign.limit)) {
      return kj::str(sign.meaning, *value);
    }
  }
  return nullptr;
}

}  // namespace

kj::Maybe<UserError> explainRefusal(Actor& actor, kj::StringPtr consequence) {
  KJ_IF_MAYBE (call, explainCall(actor, consequence)) {
    return kj::mv(*call);
  }
  return explainLimit(actor, consequence);
}

void addLastWords(UserError& error, Actor& actor, const kj::Vector<kj::String>& words) {
  for (auto& line : words)
    error.cause(line);
  auto met = limitsMet(actor);
  for (auto& limit : met)
    error.cause(limit.what);
  if (met.size() == 0 && words.size() > 0) {
    KJ_IF_MAYBE (meaning, explainWords(actor.profile(), words.back())) {
      error.cause(*meaning);
      addSource(error, actor);
    }
  }
  for (auto& limit : met)
    addRemedy(error, actor, limit.remedy);
}

}  // namespace troupe
