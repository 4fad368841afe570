#pragma once

#include <errno.h>
#include <unistd.h>

#include <string>
#include <type_traits>
#include <vector>

#include "sandbox/probe/scenarios.h"

namespace troupe::sandbox::probe {

constexpr size_t PAGE = 4096;

inline long answer(long result) {
  return result < 0 ? -long(errno) : result;
}

// An argument as the kernel gets it: filters compare all 64 bits.
template <typename T>
long asWord(T value) {
  if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T>) {
    return reinterpret_cast<long>(static_cast<const void*>(value));
  } else {
    return static_cast<long>(value);
  }
}

template <typename... Arguments>
long call(long number, Arguments... arguments) {
  return answer(syscall(number, asWord(arguments)...));
}

// A child that ends at once: its pid, or -errno. `flags` are clone's.
long cloned(uint64_t flags);

// A new memfd that holds `content`, or -errno.
long memfdWith(const char* content);

// Scenarios in the order in which they are added.
class List {
 public:
  template <typename Attempt>
  void add(const char* group, const std::string& name, Attempt attempt) {
    scenarios.push_back({group, name, attempt});
  }

  // One call whose arguments say everything.
  template <typename... Arguments>
  void plain(const char* group, const std::string& name, long number, Arguments... arguments) {
    add(group, name, [=](const Targets&) { return call(number, arguments...); });
  }

  std::vector<Scenario> scenarios;
};

// One function for each file of this folder.
void addPaths(List& list);
void addNetwork(List& list);
void addProcesses(List& list);
void addNamespaces(List& list);
void addMemory(List& list);
void addExecution(List& list);
void addFilters(List& list);
void addMachine(List& list);
void addRings(List& list);
void addFds(List& list);
void addConventions(List& list);

}  // namespace troupe::sandbox::probe
