#include "sandbox/policy.h"

#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "sandbox/constants.h"
#include "sandbox/filter_resolver.h"
#include "sandbox/layer_guard.h"
#include "sandbox/profile.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;

// Above any table of fds; and the program's own fd comes right after the limit.
constexpr uint64_t MAX_FILES = 65536;

class Resolver {
 public:
  Resolver(const ProfileFiles& files, const std::string& path) : files(files), path(path) {}

  PolicyReading resolve() {
    reading.policy.path = path;
    attempt([&] { sources = readSources(files, path); });
    if (sources.empty()) return std::move(reading);
    const SourceFile& main = *sources.back();
    policy.path = main.path;
    policy.actor = main.profile.actor();
    if (policy.actor.empty()) {
      attempt([&] {
        throw ProfileError({policy.path, 1, 1},
                           "has no `actor`; a shared rule set has none and is checked with a "
                           "profile that includes it");
      });
      return std::move(reading);
    }
    attempt([&] { requireName(main, &main.locations, main.profile, "actor", policy.actor); });
    for (const auto& source : sources) {
      attempt([&] { checkShared(*source); });
      addFds(*source);
      addLimits(*source);
    }
    std::function<void(const ProfileError&)> report = [&](const ProfileError& error) {
      reading.errors.push_back(error);
    };
    attempt([&] { requireRoomForFds(); });
    policy.layers = readLayers(sources, policy.fds, report);
    policy.filters = resolveFilters(files, sources, policy, report);
    guardLayers(policy, report);
    if (reading.errors.empty()) addBudgets();
    dropRepeatedErrors();
    return std::move(reading);
  }

 private:
  template <typename Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const ProfileError& error) {
      reading.errors.push_back(error);
    }
  }

  // A file that several threads include is looked at once for each.
  void dropRepeatedErrors() {
    std::set<std::string> seen;
    std::vector<ProfileError> kept;
    for (const ProfileError& error : reading.errors) {
      if (seen.insert(error.what()).second) kept.push_back(error);
    }
    reading.errors = std::move(kept);
  }

  void checkShared(const SourceFile& source) {
    if (&source == sources.back().get()) return;
    if (!source.profile.actor().empty()) {
      throw ProfileError(locate(source, &source.locations, source.profile, "actor"),
                         "only a shared rule set can be included; this is the profile of \"" +
                             source.profile.actor() + "\"");
    }
    if (source.profile.budget_size() > 0) {
      throw ProfileError(locate(source, &source.locations, source.profile, "budget"),
                         "a budget stands in the profile of an actor, not in a shared rule set");
    }
  }

  void addFds(const SourceFile& file) {
    for (int i = 0; i < file.profile.fd_size(); i++)
      attempt([&] { addFd(file, i); });
  }

  void addFd(const SourceFile& file, int index) {
    const policy::Fd& fd = file.profile.fd(index);
    const Locations* tree = inside(&file.locations, file.profile, "fd", index);
    requireName(file, tree, fd, "name", fd.name());
    uint32_t count = fd.has_count() ? fd.count() : 1;
    if (count == 0 || count > 4096) {
      throw ProfileError(locate(file, tree, fd, "count"), "`count` is 1 to 4096");
    }
    if (fd.number() >= MAX_FILES) {
      throw ProfileError(locate(file, tree, fd, "number"), "`number` is 0 to 65535");
    }
    SourceLocation where = locate(file, &file.locations, file.profile, "fd", index);
    if (fd.kind() == policy::Fd::UNSPECIFIED) {
      throw ProfileError(where, "fd \"" + fd.name() + "\" has no `kind`; ANY is one");
    }
    if (fd.from() == policy::Fd::MADE && count != 1) {
      throw ProfileError(locate(file, tree, fd, "from"),
                         "a range is HANDED or PLACED: its numbers cannot be left to the kernel");
    }
    for (const PolicyFd& other : policy.fds) {
      if (other.name == fd.name()) {
        throw ProfileError(locate(file, tree, fd, "name"),
                           "there is another fd \"" + fd.name() + "\" at " + describe(other.where));
      }
      // The kernel reuses the number of an fd that start-up closes.
      bool follows = (other.closed && fd.from() == policy::Fd::MADE) || (fd.closed() && other.made);
      if (fd.number() < other.number + other.count && other.number < fd.number() + count &&
          !follows) {
        throw ProfileError(locate(file, tree, fd, "number"),
                           "fd \"" + fd.name() + "\" takes a number of fd \"" + other.name +
                               "\" (" + std::to_string(other.number) + " to " +
                               std::to_string(other.number + other.count - 1) + ")");
      }
    }
    std::string kind = policy::Fd::Kind_Name(fd.kind());
    std::transform(kind.begin(), kind.end(), kind.begin(), ::tolower);
    policy.fds.push_back({fd.name(), fd.number(), count, kind, fd.from() == policy::Fd::HANDED,
                          fd.optional(), fd.closed(), fd.from() == policy::Fd::MADE, where});
  }

  void addLimits(const SourceFile& file) {
    for (int i = 0; i < file.profile.limit_size(); i++)
      attempt([&] { addLimit(file, i); });
  }

  void addLimit(const SourceFile& file, int index) {
    const policy::Limit& limit = file.profile.limit(index);
    const Locations* tree = inside(&file.locations, file.profile, "limit", index);
    auto resource = findConstant("RLIMIT_" + limit.resource());
    if (!resource) {
      throw ProfileError(locate(file, tree, limit, "resource"),
                         "there is no limit \"" + limit.resource() +
                             "\"; there are AS, CORE, CPU, DATA, FSIZE, MEMLOCK, NOFILE, NPROC "
                             "and STACK");
    }
    for (const PolicyLimit& other : policy.limits) {
      if (other.resource == int(*resource)) {
        throw ProfileError(locate(file, tree, limit, "resource"),
                           "limit " + limit.resource() + " was given before");
      }
    }
    if (*resource == RLIMIT_NOFILE && limit.value() > MAX_FILES) {
      throw ProfileError(locate(file, tree, limit, "value"),
                         "NOFILE is at most " + std::to_string(MAX_FILES) +
                             ", the largest number of an fd there may be in a profile");
    }
    policy.limits.push_back({int(*resource), limit.value(), limit.resource()});
    if (*resource == RLIMIT_NOFILE) fileLimitAt = locate(file, tree, limit, "value");
  }

  // Of fds that the actor itself puts in their place; those it is handed are there before its
  // limits.
  void requireRoomForFds() const {
    for (const PolicyLimit& limit : policy.limits) {
      if (limit.resource != RLIMIT_NOFILE) continue;
      for (const PolicyFd& fd : policy.fds) {
        if (fd.handed || fd.number + fd.count <= limit.value) continue;
        throw ProfileError(fileLimitAt, "NOFILE is " + std::to_string(limit.value) + ", and fd \"" +
                                            fd.name + "\" has numbers up to " +
                                            std::to_string(fd.number + fd.count - 1) +
                                            "; leave the limit out, and it is what the fds need");
      }
    }
  }

  void addBudgets() {
    const SourceFile& file = *sources.back();
    for (int i = 0; i < file.profile.budget_size(); i++)
      attempt([&] { addBudget(file, i); });
  }

  void addBudget(const SourceFile& file, int index) {
    const policy::Budget& budget = file.profile.budget(index);
    const Locations* tree = inside(&file.locations, file.profile, "budget", index);
    SourceLocation where = locate(file, &file.locations, file.profile, "budget", index);
    const PolicyFilter* filter = filterOf(policy, budget.filter());
    if (filter == nullptr) {
      std::string known;
      for (const std::string& stage : stagesOf(policy))
        known += (known.empty() ? "" : ", ") + stage;
      throw ProfileError(locate(file, tree, budget, "filter"),
                         "the profile has no filter \"" + budget.filter() + "\"; it has " + known);
    }
    for (const PolicyBudget& other : policy.budgets) {
      if (other.filter == budget.filter()) {
        throw ProfileError(where, "there is another budget for " + budget.filter());
      }
    }
    policy.budgets.push_back({budget.filter(), budget.syscalls(), budget.unconditional(), where});
    Reach reach = reachOf(*filter);
    require(where, budget.filter(), "system calls", reach.total(), budget.syscalls(),
            reach.conditional, reach.unconditional);
    require(where, budget.filter(), "system calls without a condition on an argument",
            reach.unconditional.size(), budget.unconditional(), {}, reach.unconditional);
  }

  static void require(const SourceLocation& where, const std::string& filter,
                      const std::string& what, size_t count, size_t allowed,
                      const std::vector<std::string>& some,
                      const std::vector<std::string>& others) {
    if (count <= allowed) return;
    std::vector<std::string> names = some;
    names.insert(names.end(), others.begin(), others.end());
    std::sort(names.begin(), names.end());
    std::string list;
    for (const std::string& name : names)
      list += (list.empty() ? "" : ", ") + name;
    throw ProfileError(where, filter + " lets " + std::to_string(count) + " " + what +
                                  " through, and its budget is " + std::to_string(allowed) + ": " +
                                  list);
  }

  const ProfileFiles& files;
  const std::string& path;
  std::vector<std::unique_ptr<SourceFile>> sources;
  PolicyReading reading;
  SourceLocation fileLimitAt;
  Policy& policy = reading.policy;
};

}  // namespace

const PolicyFilter* filterOf(const Policy& policy, const std::string& stage) {
  const PolicyFilter* ready = nullptr;
  for (const PolicyFilter& filter : policy.filters) {
    if (filter.stage == stage) return &filter;
    if (filter.stage == "ready") ready = &filter;
  }
  return stage == "run" ? ready : nullptr;
}

std::vector<std::string> stagesOf(const Policy& policy) {
  std::vector<std::string> stages;
  for (const PolicyFilter& filter : policy.filters) {
    stages.push_back(filter.stage);
    bool shared = filter.stage == "ready" && filterOf(policy, "run") == &filter;
    if (shared) stages.push_back("run");
  }
  return stages;
}

Reach reachOf(const PolicyFilter& filter) {
  std::map<std::string, bool> conditional;
  for (const PolicyRule& rule : filter.rules) {
    if (rule.error != 0) continue;
    auto [entry, isNew] = conditional.try_emplace(rule.syscallName, true);
    entry->second = entry->second && !rule.arguments.empty();
  }
  Reach reach;
  for (const auto& [name, conditions] : conditional)
    (conditions ? reach.conditional : reach.unconditional).push_back(name);
  return reach;
}

PolicyReading examinePolicy(const ProfileFiles& files, const std::string& path) {
  return Resolver(files, path).resolve();
}

Policy readPolicy(const ProfileFiles& files, const std::string& path) {
  PolicyReading reading = examinePolicy(files, path);
  if (!reading.errors.empty()) throw reading.errors.front();
  return std::move(reading.policy);
}

Policy readPolicy(const std::string& root, const std::string& path) {
  return readPolicy(FolderFiles(root), path);
}

}  // namespace troupe::sandbox
