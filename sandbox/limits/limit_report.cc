#include "sandbox/limits/limit_report.h"

#include <kj/vector.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace troupe::sandbox {
namespace {

constexpr uint64_t MIB = 1 << 20;

kj::String sizeText(uint64_t bytes) {
  if (bytes % MIB == 0) return kj::str(bytes / MIB, " MiB");
  return kj::str(bytes, " bytes");
}

// A value to try instead: half as much again, rounded up to something people write.
uint64_t more(uint64_t value, uint64_t step) {
  return (value + value / 2 + step) / step * step;
}

bool killedBy(int waitStatus, int signal) {
  return WIFSIGNALED(waitStatus) && WTERMSIG(waitStatus) == signal;
}

kj::Maybe<uint64_t> limitOf(const Profile& profile, int resource) {
  for (size_t i = 0; i < profile.limitCount; i++) {
    if (profile.limits[i].resource == resource) return profile.limits[i].value;
  }
  if (resource == RLIMIT_NOFILE) return fileLimit(profile);
  return nullptr;
}

kj::String limitLine(const char* resource, uint64_t value) {
  return kj::str("limit { resource: \"", resource, "\" value: ", value, " }");
}

class Report {
 public:
  Report(const Profile& profile, int waitStatus) : profile(profile), waitStatus(waitStatus) {}

  void look(const CgroupAccount& counts) {
    bool killed = counts.oomKills > 0 && killedBy(waitStatus, SIGKILL);
    if (killed || counts.ownLimit > 0) memory(counts, killed);
    uint64_t most = cgroupLimit(profile, ProfileCgroupLimit::PIDS_MAX);
    if (counts.pidsRefused > 0 && most > 0) {
      add(false,
          kj::str("it was refused a process or a thread ", times(counts.pidsRefused),
                  ": its pids_max is ", most),
          kj::str("cgroup { pids_max { value: ", more(most, 4), " } }"));
    }
  }

  void look(const LastUse& use) {
    KJ_IF_MAYBE (most, limitOf(profile, RLIMIT_CPU)) {
      // The kernel looks once a tick.
      bool deadly = killedBy(waitStatus, SIGKILL) || killedBy(waitStatus, SIGXCPU);
      if (deadly && use.cpuMs + 1000 > *most * 1000) {
        add(true,
            kj::str("it used ", (use.cpuMs + 500) / 1000, " s of CPU time; its limit CPU is ",
                    *most, " s"),
            limitLine("CPU", more(*most, 1)));
      }
    }
    bool ordinary = WIFEXITED(waitStatus) && WEXITSTATUS(waitStatus) == 0;
    if (ordinary) return;
    KJ_IF_MAYBE (most, limitOf(profile, RLIMIT_NOFILE)) {
      if (use.openFiles >= *most) {
        add(false, kj::str("it had as many fds open as its limit NOFILE lets it: ", *most),
            limitLine("NOFILE", more(*most, 8)));
      }
    }
    KJ_IF_MAYBE (most, limitOf(profile, RLIMIT_AS)) {
      // Nobody counts what was refused; a sixteenth is more than malloc asks for at a time.
      if (use.addressSpace + *most / 16 >= *most) {
        add(false,
            kj::str("it had mapped ", sizeText(use.addressSpace), " of the ", sizeText(*most),
                    " that its limit AS lets it"),
            limitLine("AS", more(*most, MIB)));
      }
    }
  }

  kj::Array<MetLimit> finish() { return met.releaseAsArray(); }

 private:
  static kj::String times(uint64_t count) {
    return count == 1 ? kj::str("once") : kj::str(count, " times");
  }

  void add(bool deadly, kj::String what, kj::String remedy) {
    met.add(MetLimit{deadly, kj::mv(what), kj::mv(remedy)});
  }

  void memory(const CgroupAccount& counts, bool killed) {
    uint64_t most = cgroupLimit(profile, ProfileCgroupLimit::MEMORY_MAX);
    kj::StringPtr verb = killed ? "used" : "came to";
    auto remedy = kj::str("cgroup { memory_max { value: ", more(most, MIB), " } }");
    bool maps = profile.layers.memory.access != ProfileMemory::NONE;
    uint64_t guest = counts.guestMemory;
    if (counts.ownLimit > 0) {
      auto beside =
          maps && guest > 0 ? kj::str(" beside ", sizeText(guest), " of guest RAM") : kj::str();
      add(killed, kj::str("it ", verb, " all of its memory_max of ", sizeText(most), beside),
          kj::mv(remedy));
    } else if (counts.vmLimit > 0) {
      add(killed,
          kj::str("the actors of this VM together used all of the ", sizeText(counts.vmMemory),
                  " that their profiles and ", sizeText(guest),
                  " of guest RAM come to; this one has ", sizeText(most)),
          kj::mv(remedy));
    } else {
      add(killed,
          kj::str("the host, or a control group around the VM, had no memory left; its own "
                  "memory_max of ",
                  sizeText(most), " was not met"),
          nullptr);
    }
  }

  const Profile& profile;
  int waitStatus;
  kj::Vector<MetLimit> met;
};

}  // namespace

kj::Array<MetLimit> limitsMet(const Profile& profile, int waitStatus, kj::Maybe<LastUse> use,
                              kj::Maybe<CgroupAccount> account) {
  Report report(profile, waitStatus);
  KJ_IF_MAYBE (counted, account) {
    report.look(*counted);
  }
  KJ_IF_MAYBE (last, use) {
    report.look(*last);
  }
  return report.finish();
}

}  // namespace troupe::sandbox
