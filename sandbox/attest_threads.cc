// Filters, tracer, privileges, capabilities and ids, which belong to threads.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/attest_subject.h"
#include "sandbox/errno_text.h"
#include "sandbox/jail_plan.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

// One thread of a subject. `who`: "it" or "its thread blk-q0".
struct Thread {
  Subject& subject;
  pid_t id;
  kj::StringPtr who;
  kj::StringPtr status;
  bool main;
  bool kernels;  // a worker of the kernel, which never runs the program

  kj::String layer(kj::StringPtr name) const {
    return main ? kj::heapString(name) : kj::str(who.slice(4), ": ", name);
  }

  // Of threads besides the main one nothing is shown but what differs: a broker can have 255.
  template <typename... Parts>
  void seen(kj::StringPtr layer, Parts&&... parts) const {
    if (main) subject.seen(layer, kj::fwd<Parts>(parts)...);
  }
};

bool has(const Profile& profile, kj::StringPtr stage) {
  for (size_t i = 0; i < profile.filterCount; i++) {
    if (stage == profile.filters[i].stage) return true;
  }
  return false;
}

void checkFilterCount(const Thread& thread, int filters) {
  const Subject& subject = thread.subject;
  if (subject.profile.layers.helper.is) {
    if (filters >= 2 || subject.options.stage == Stage::START) return;
    thread.subject.differ(thread.layer("seccomp"), thread.who, " has ", filters,
                          " system call filter(s); a helper has its profile's and its own");
    return;
  }
  int least = 1;
  if (subject.options.stage != Stage::START && has(subject.profile, "ready")) least = 2;
  int most = least;
  // An actor may go to `run` with or without a stop at `ready`.
  if (subject.options.stage == Stage::RUN && has(subject.profile, "run")) most = 3;
  // A thread that took its own filter after the process's has both.
  if (!thread.main) most++;
  if (filters < least || filters > most) {
    thread.subject.differ(thread.layer("seccomp"), thread.who, " has ", filters,
                          " system call filters; its profile makes that ",
                          least == most ? kj::str(least) : kj::str(least, " to ", most));
  }
}

void checkSeccomp(const Thread& thread, int inheritedFilters) {
  auto layer = thread.layer("seccomp");
  auto mode = statusField(thread.status, "Seccomp");
  int filters = atoi(statusField(thread.status, "Seccomp_filters").cStr()) - inheritedFilters;
  thread.seen(layer, "mode ", mode, ", ", filters, " filters");
  if (mode != "2") {
    thread.subject.differ(layer, thread.who, " has seccomp mode ", mode,
                          "; a jailed actor has mode 2 (filter)");
  } else {
    checkFilterCount(thread, filters);
    if (!thread.kernels) attestFilters(thread.subject, layer, thread.who, thread.id);
  }
}

// Whoever traces a process can make it do anything.
void checkTracer(const Thread& thread) {
  auto layer = thread.layer("tracer");
  auto tracer = atoi(statusField(thread.status, "TracerPid").cStr());
  thread.seen(layer, tracer == 0 ? kj::str("none") : kj::str("process ", tracer));
  bool mayBeNone = thread.kernels || !thread.subject.options.traced;
  if (tracer == getpid() || (tracer == 0 && mayBeNone)) return;
  thread.subject.differ(layer, thread.who, " is traced by ",
                        tracer == 0 ? kj::str("nobody") : kj::str("process ", tracer), ", not by ",
                        getpid(), ", which started it");
}

void checkPrivileges(const Thread& thread) {
  auto layer = thread.layer("no_new_privs");
  auto noNewPrivileges = statusField(thread.status, "NoNewPrivs");
  thread.seen(layer, noNewPrivileges);
  if (noNewPrivileges != "1") {
    thread.subject.differ(layer, thread.who, " may gain privileges by exec: NoNewPrivs is ",
                          noNewPrivileges, ", not 1");
  }
}

void checkCapabilities(const Thread& thread) {
  auto layer = thread.layer("capabilities");
  constexpr const char* SETS[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
  auto values = KJ_MAP(set, SETS) {
    return statusField(thread.status, set);
  };
  auto kept = kj::str(kj::hex(thread.subject.profile.layers.capabilities));
  auto expected = kj::str(kj::repeat('0', 16 - kept.size()), kept);
  bool none = true;
  for (size_t i = 0; i < values.size(); i++) {
    bool bounding = strcmp(SETS[i], "CapBnd") == 0 && thread.subject.profile.layers.helper.is;
    none = none && (bounding || values[i] == "0000000000000000");
  }
  thread.seen(layer, none ? kj::str("none") : kj::strArray(values, " "));
  for (size_t i = 0; i < values.size(); i++) {
    if (values[i] == expected) continue;
    // A helper's own user namespace begins with a full set, which without executables bounds
    // nothing.
    bool bounding = strcmp(SETS[i], "CapBnd") == 0;
    if (bounding && thread.subject.profile.layers.helper.is) continue;
    thread.subject.differ(layer, thread.who, " has capabilities: ", SETS[i], " is ", values[i],
                          ", not ", kept);
  }
}

kj::String spaced(kj::String text) {
  for (char& c : text) {
    if (c == '\t') c = ' ';
  }
  return text;
}

void checkIds(const Thread& thread) {
  auto layer = thread.layer("ids");
  bool asRoot = geteuid() == 0;
  uint32_t uid = asRoot ? FIRST_HOST_ID + thread.subject.pid : geteuid();
  uint32_t gid = asRoot ? FIRST_HOST_ID + thread.subject.pid : getegid();
  auto uids = statusField(thread.status, "Uid"), gids = statusField(thread.status, "Gid");
  auto groups = statusField(thread.status, "Groups");
  thread.seen(layer, "uid ", atol(uids.cStr()), ", gid ", atol(gids.cStr()), ", ",
              groups.size() == 0 ? kj::str("no groups") : kj::str("groups ", groups));
  auto expect = [&](kj::StringPtr key, kj::String value, uint32_t id) {
    if (value == kj::str(id, '\t', id, '\t', id, '\t', id)) return;
    thread.subject.differ(layer, thread.who, " has ", key, " ", spaced(kj::mv(value)),
                          " on the host, not ", id);
  };
  expect("Uid", kj::mv(uids), uid);
  expect("Gid", kj::mv(gids), gid);
  if (asRoot && groups.size() > 0) {
    thread.subject.differ(layer, thread.who, " is still in groups ", groups);
  }
}

// Whether a thread is a worker that the kernel made in the process, for io_uring or for KVM.
bool isKernels(const Subject& subject, kj::StringPtr thread) {
  constexpr uint64_t PF_IO_WORKER = 0x10, PF_USER_WORKER = 0x4000;
  KJ_IF_MAYBE (stat, readAll(subject.folder, kj::str("task/", thread, "/stat").cStr())) {
    // "7 (name) S …": the flags are the seventh word after the name, which may hold anything.
    KJ_IF_MAYBE (end, stat->findLast(')')) {
      const char* at = stat->cStr() + *end + 1;
      for (int i = 0; i < 6 && at != nullptr; i++)
        at = strchr(at + 1, ' ');
      if (at != nullptr) return (strtoull(at, nullptr, 10) & (PF_IO_WORKER | PF_USER_WORKER)) != 0;
    }
  }
  return false;
}

void checkThread(const Thread& thread, int inheritedFilters) {
  checkSeccomp(thread, inheritedFilters);
  checkTracer(thread);
  checkPrivileges(thread);
  checkCapabilities(thread);
  checkIds(thread);
}

}  // namespace

void attestThreads(Subject& subject, int inheritedFilters) {
  KJ_IF_MAYBE (threads, listFolder(subject.folder, "task")) {
    for (const kj::String& thread : *threads) {
      // What /proc/PID/status says of threads, it says of the main one.
      bool main = thread == kj::str(subject.pid);
      auto path = main ? kj::str("status") : kj::str("task/", thread, "/status");
      KJ_IF_MAYBE (status, readAll(subject.folder, path.cStr())) {
        auto who = main ? kj::str("it") : kj::str("its thread ", statusField(*status, "Name"));
        checkThread(
            {subject, atoi(thread.cStr()), who, *status, main, !main && isKernels(subject, thread)},
            inheritedFilters);
      }
    }
    if (threads->size() == 0) subject.differ("process", "it has ended");
    subject.seen("threads", threads->size(), threads->size() == 1 ? "" : ", each as the main one");
  } else {
    subject.differ("process", "its threads cannot be listed: ", errnoText(errno));
  }
}

}  // namespace troupe::sandbox
