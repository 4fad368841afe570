#pragma once

#include <functional>
#include <string>
#include <vector>

namespace troupe::sandbox::probe {

// What lies outside a jail and must stay out of reach. Process ids are the host's.
struct Targets {
  int parent = 0;
  int sibling = 0;
  int programFd = 0;         // the number from which the launcher executes
  uint16_t tcpPort = 0;      // on the host's loopback, where somebody listens
  std::string abstractName;  // of a UNIX socket where somebody listens, without its NUL
};

// One way of trying to get out of a jail, or to make it weaker.
struct Scenario {
  std::string group;
  std::string name;
  // Non-negative when it worked, otherwise -errno. Runs in a process of its own.
  std::function<long(const Targets&)> attempt;
};

// All of them, always in the same order.
std::vector<Scenario> makeScenarios();

}  // namespace troupe::sandbox::probe
