#include "sandbox/refused_call.h"

#include <fcntl.h>
#include <kj/vector.h>
#include <linux/audit.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>

#include "sandbox/call_shape.h"
#include "sandbox/constants.h"
#include "sandbox/filter_answer.h"
#include "sandbox/start_only.h"
#include "sandbox/syscall_names.h"

namespace troupe::sandbox {
namespace {

constexpr uint64_t X32_BIT = 1 << 30;

kj::String hex(uint64_t value) {
  return kj::str("0x", kj::hex(value));
}

// Explains one call under one profile.
class Explanation {
 public:
  Explanation(const Profile& profile, const CallRegisters& registers, const char* name)
      : profile(profile), registers(registers), name(name), shape(callShape(name)) {}

  kj::String call() const {
    kj::Vector<kj::String> texts;
    for (uint32_t i = 0; i < strlen(shape.arguments); i++)
      texts.add(argument(i));
    return kj::str(name, "(", kj::strArray(texts, ", "), ")");
  }

  kj::String rule() const {
    kj::Vector<kj::String> parts;
    parts.add(kj::str("syscall: \"", name, "\""));
    for (uint32_t i = 0; i < strlen(shape.arguments); i++) {
      if (shape.arguments[i] == 'f') {
        KJ_IF_MAYBE (fd, profileFd(i)) {
          auto condition = kj::str("fd: \"", fd->name, "\"");
          parts.add(i == 0 ? kj::mv(condition) : kj::str("arg { index: ", i, " ", condition, " }"));
        }
      } else if (shape.arguments[i] == 'W') {
        parts.add(kj::str("arg { index: ", i, " value: \"", words(i), "\" }"));
      }
    }
    parts.add(kj::str("reason: \"...\""));
    return kj::str("rule { ", kj::strArray(parts, " "), " }");
  }

 private:
  uint64_t value(uint32_t index) const { return registers.arguments[index]; }

  kj::Maybe<const ProfileFd&> profileFd(uint32_t index) const {
    for (size_t i = 0; i < profile.fdCount; i++) {
      const ProfileFd& fd = profile.fds[i];
      if (value(index) >= fd.number && value(index) - fd.number < fd.count) return fd;
    }
    return nullptr;
  }

  kj::String argument(uint32_t index) const {
    switch (shape.arguments[index]) {
      case 'f':
        return fd(index);
      case 'n':
        return kj::str(static_cast<int64_t>(value(index)));
      case 'x':
        return hex(value(index));
      default:
        return words(index);
    }
  }

  kj::String fd(uint32_t index) const {
    // The kernel looks at 32 bits; a filter compares 64.
    int number = static_cast<int>(value(index));
    if (number == AT_FDCWD) return kj::str("AT_FDCWD");
    KJ_IF_MAYBE (known, profileFd(index)) {
      if (known->count == 1) return kj::str(known->name, " (", number, ")");
      return kj::str(known->name, "[", number - known->number, "] (", number, ")");
    }
    return kj::str(number);
  }

  kj::String words(uint32_t index) const {
    auto text = constantWords(value(index), wordsOf(shape, index));
    return kj::heapString(text.c_str(), text.size());
  }

  const Profile& profile;
  const CallRegisters& registers;
  const char* name;
  const CallShape& shape;
};

bool isThreadFilter(const ProfileFilter& filter) {
  return strncmp(filter.stage, "thread:", 7) == 0;
}

// What the compiler of profiles allows no rule for after `start` (layer_guard.h): a mapping of a
// file.
bool reachesMoreMemory(const Profile& profile, const CallRegisters& registers) {
  constexpr int FLAGS = 3;
  return profile.layers.memory.access != ProfileMemory::ALL && registers.number == SYS_mmap &&
         (registers.arguments[FLAGS] & MAP_ANONYMOUS) == 0;
}

struct Stage {
  kj::String name;
  kj::String place;  // where a rule for it stands
};

// The stage a thread with `filterCount` filters is in, if its filter there kills it for `call`. A
// thread's second filter is its own or that of "ready": whichever kills, its own first.
kj::Maybe<Stage> stageOf(const Profile& profile, const seccomp_data& call, bool isMainThread,
                         uint32_t filterCount) {
  kj::Vector<const ProfileFilter*> inTurn;
  kj::Vector<kj::StringPtr> threads;
  for (size_t i = 0; i < profile.filterCount; i++) {
    const ProfileFilter& filter = profile.filters[i];
    if (!isThreadFilter(filter)) {
      inTurn.add(&filter);
    } else if (!isMainThread && filterCount > 1 && kills(filter, call)) {
      threads.add(filter.stage);
    }
  }
  if (threads.size() > 0) {
    auto places = KJ_MAP(stage, threads) {
      return kj::str("thread \"", stage.slice(7), "\"");
    };
    return Stage{kj::strArray(threads, " or "), kj::strArray(places, " or ")};
  }
  // "run" may have been entered without "ready": then the last of them that kills is a later one.
  size_t last = kj::min(kj::max(filterCount, 1u), inTurn.size()) - 1;
  size_t end = filterCount > 1 ? inTurn.size() : last + 1;
  for (size_t i = last; i < end; i++) {
    if (!kills(*inTurn[i], call)) continue;
    kj::StringPtr name = inTurn[i]->stage;
    // Where there is one filter for both, its rules stand in the later stage.
    if (name == "ready" && i + 1 == inTurn.size()) name = "run";
    return Stage{kj::heapString(name), kj::heapString(name)};
  }
  return nullptr;
}

}  // namespace

kj::Maybe<RefusedCall> explainCall(const Profile& profile, const CallRegisters& registers,
                                   bool isMainThread, uint32_t filterCount) {
  seccomp_data call = {};
  call.nr = static_cast<int>(registers.number);
  call.arch = registers.architecture;
  call.instruction_pointer = registers.instructionPointer;
  memcpy(call.args, registers.arguments, sizeof(call.args));
  KJ_IF_MAYBE (stage, stageOf(profile, call, isMainThread, filterCount)) {
    if (registers.architecture != AUDIT_ARCH_X86_64 || (registers.number & X32_BIT) != 0) {
      auto convention = registers.architecture == AUDIT_ARCH_X86_64 ? "x32" : "i386";
      return RefusedCall{kj::mv(stage->name),
                         kj::str("call ", registers.number & ~X32_BIT, " by the ", convention,
                                 " convention, which no profile can allow"),
                         nullptr};
    }
    const char* known = syscallName(registers.number);
    if (known == nullptr) {
      return RefusedCall{kj::mv(stage->name),
                         kj::str("system call ", registers.number,
                                 ", which is younger than this build and has no name in it"),
                         nullptr};
    }
    Explanation explanation(profile, registers, known);
    if (stage->name != "start" && reachesMoreMemory(profile, registers)) {
      return RefusedCall{
          kj::mv(stage->name), explanation.call(),
          kj::str(
              "no profile may allow it once an actor is ready that may not reach all of guest RAM: "
              "what it maps of files it maps in start, or ",
              profile.source, " says memory { access: ALL }")};
    }
    if (stage->name != "start" && isForStartOnly(known)) {
      return RefusedCall{kj::mv(stage->name), explanation.call(),
                         kj::str("no profile may allow ", known,
                                 " once an actor is ready: it belongs into start, or `troupe` does "
                                 "it and hands over the fd")};
    }
    return RefusedCall{
        kj::mv(stage->name), explanation.call(),
        kj::str("add to ", profile.source, ", ", stage->place, ": ", explanation.rule())};
  }
  return nullptr;
}

}  // namespace troupe::sandbox
