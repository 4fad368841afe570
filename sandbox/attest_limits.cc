#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "sandbox/attest_subject.h"
#include "sandbox/errno_text.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

struct LimitName {
  int resource;
  const char* name;
  const char* inProc;
};

constexpr LimitName LIMIT_NAMES[] = {
    {RLIMIT_AS, "AS", "Max address space"},      {RLIMIT_CORE, "CORE", "Max core file size"},
    {RLIMIT_CPU, "CPU", "Max cpu time"},         {RLIMIT_DATA, "DATA", "Max data size"},
    {RLIMIT_FSIZE, "FSIZE", "Max file size"},    {RLIMIT_MEMLOCK, "MEMLOCK", "Max locked memory"},
    {RLIMIT_NOFILE, "NOFILE", "Max open files"}, {RLIMIT_NPROC, "NPROC", "Max processes"},
    {RLIMIT_STACK, "STACK", "Max stack size"},
};

uint64_t parseLimit(const char* text, char** end) {
  while (*text == ' ')
    text++;
  if (strncmp(text, "unlimited", 9) == 0) {
    *end = const_cast<char*>(text) + 9;
    return ~uint64_t{0};
  }
  return strtoull(text, end, 10);
}

// "Max open files            1024                 4096                 files"
void checkLimit(Subject& subject, kj::StringPtr limits, int resource, uint64_t value) {
  for (const LimitName& known : LIMIT_NAMES) {
    if (known.resource != resource) continue;
    const char* line = strstr(limits.cStr(), kj::str("\n", known.inProc, " ").cStr());
    if (line == nullptr) break;
    const char* soft = line + 1 + strlen(known.inProc);
    while (*soft == ' ')
      soft++;
    auto shown = kj::heapString(soft, strcspn(soft, " "));
    auto layer = kj::str("limit ", known.name);
    subject.seen(layer, shown);
    char* hard;
    if (parseLimit(soft, &hard) <= value && parseLimit(hard, &hard) <= value) return;
    subject.differ(layer, "its limit ", known.name, " is ", shown,
                   " or may be raised; its profile says ", value);
    return;
  }
  subject.differ("limits", "its limit ", resource, " is unknown to this kernel");
}

}  // namespace

void attestLimits(Subject& subject) {
  KJ_IF_MAYBE (limits, readAll(subject.folder, "limits")) {
    const Profile& profile = subject.profile;
    bool hasCore = false, hasFiles = false;
    for (size_t i = 0; i < profile.limitCount; i++) {
      checkLimit(subject, *limits, profile.limits[i].resource, profile.limits[i].value);
      hasCore |= profile.limits[i].resource == RLIMIT_CORE;
      hasFiles |= profile.limits[i].resource == RLIMIT_NOFILE;
    }
    if (!hasCore) checkLimit(subject, *limits, RLIMIT_CORE, 0);
    if (!hasFiles) checkLimit(subject, *limits, RLIMIT_NOFILE, fileLimit(profile));
  } else {
    subject.differ("limits", "its limits cannot be read: ", errnoText(errno));
  }
}

}  // namespace troupe::sandbox
