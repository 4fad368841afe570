#include "sandbox/tool/looser.h"

#include <algorithm>

#include "sandbox/tool/call_text.h"
#include "sandbox/tool/coverage.h"

namespace troupe::sandbox {
namespace {

// The tighter, the larger.
uint64_t tightness(const ProfileLayer& layer) {
  switch (layer.need) {
    case ProfileLayer::OFF:
      return 0;
    case ProfileLayer::OPTIONAL:
      return 1;
    case ProfileLayer::REQUIRED_SINCE:
      return UINT32_MAX - uint64_t(layer.since) + 2;
    case ProfileLayer::REQUIRED:
      return uint64_t(UINT32_MAX) + 3;
  }
  return 0;
}

// Of values of which 0 sets no limit.
bool isLooserRate(uint64_t before, uint64_t after) {
  return before != 0 && (after == 0 || after > before);
}

template <typename Wanted, typename All>
bool contains(const All& all, const Wanted& wanted) {
  return std::any_of(all.begin(), all.end(),
                     [&](const auto& one) { return one.number == wanted.number; });
}

class Comparison {
 public:
  Comparison(const Policy& before, const Policy& after) : before(before), after(after) {}

  std::vector<std::string> parts() {
    compareStages();
    compareLayers();
    compareLimits();
    compareCgroup();
    return std::move(found);
  }

 private:
  void add(const std::string& part) { found.push_back(part); }

  void compareStages() {
    for (const std::string& stage : stagesOf(after)) {
      if (filterOf(before, stage) != nullptr) compareRules(stage);
    }
    // Without a filter of its own a thread has that of the whole process.
    for (const std::string& stage : stagesOf(before)) {
      if (filterOf(after, stage) == nullptr) add(stage + ": there is no such filter any more");
    }
  }

  void compareRules(const std::string& stage) {
    std::vector<Verdict> allowed, answered;
    for (const PolicyRule& rule : filterOf(before, stage)->rules) {
      for (const Verdict& verdict : rule.verdicts()) {
        if (rule.error == 0) allowed.push_back(verdict);
        answered.push_back(verdict);
      }
    }
    for (const PolicyRule& rule : filterOf(after, stage)->rules) {
      if (rule.where.line == 0) continue;  // the jail's own steps, which every profile has
      const auto& by = rule.error == 0 ? allowed : answered;
      auto verdicts = rule.verdicts();
      bool isCovered = std::all_of(verdicts.begin(), verdicts.end(),
                                   [&](const Verdict& verdict) { return covered(verdict, by); });
      if (!isCovered) {
        std::string conditions = conditionsText(rule);
        add(stage + ": " + callText(rule) + (conditions == "-" ? "" : ", " + conditions) + " (" +
            placeText(rule.where) + ")");
      }
    }
  }

  void compareLayer(const std::string& name, const ProfileLayer& old, const ProfileLayer& now) {
    if (tightness(now) < tightness(old)) {
      add("layer " + name + ": " + needText(now) + ", where it was " + needText(old));
    }
  }

  void compareLayers() {
    const PolicyLayers& old = before.layers;
    const PolicyLayers& now = after.layers;
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
      compareLayer(std::string("namespace ") + nameOf(NamespaceKind(i)), old.namespaces[i].layer,
                   now.namespaces[i].layer);
    }
    for (size_t i = 0; i < LANDLOCK_ACCESS_COUNT; i++) {
      compareLayer(std::string("landlock ") + nameOf(LandlockAccess(i)), old.landlock[i].layer,
                   now.landlock[i].layer);
    }
    compareLayer("mdwe", old.mdwe.layer, now.mdwe.layer);
    compareLayer("executable_seals", old.executableSeals.layer, now.executableSeals.layer);
    for (const auto& capability : now.capabilities) {
      if (!contains(old.capabilities, capability)) add("capability " + capability.name);
    }
    for (const auto& opcode : now.ioUringOpcodes) {
      if (!contains(old.ioUringOpcodes, opcode)) add("io_uring: " + opcode.name);
    }
    // What every operation has is a condition on each.
    for (const auto& flag : old.ioUringSqeFlags) {
      if (!contains(now.ioUringSqeFlags, flag)) add("io_uring: operations without " + flag.name);
    }
    if (now.memory.access > old.memory.access) {
      add(std::string("memory of the guest's: ") + nameOf(now.memory.access));
    }
    if (now.helper.is != old.helper.is) add("helper");
  }

  void compareLimits() {
    for (const PolicyLimit& old : before.limits) {
      auto now = std::find_if(after.limits.begin(), after.limits.end(),
                              [&](const PolicyLimit& one) { return one.resource == old.resource; });
      if (now == after.limits.end()) {
        add("limit " + old.name + ": none, where it was " + std::to_string(old.value));
      } else if (now->value > old.value) {
        add("limit " + old.name + ": " + std::to_string(now->value) + ", where it was " +
            std::to_string(old.value));
      }
    }
  }

  void compareCgroup() {
    for (const auto& old : before.layers.cgroupLimits) {
      std::string name = std::string("cgroup ") + nameOf(old.kind);
      const auto& all = after.layers.cgroupLimits;
      auto now = std::find_if(all.begin(), all.end(),
                              [&](const auto& one) { return one.kind == old.kind; });
      if (now == all.end()) {
        add(name + ": none, where it was " + std::to_string(old.value));
        continue;
      }
      compareLayer(name, old.layer, now->layer);
      if (now->value > old.value) {
        add(name + ": " + std::to_string(now->value) + ", where it was " +
            std::to_string(old.value));
      }
    }
    for (const auto& old : before.layers.ioLimits) {
      std::string name = "cgroup io of " + old.fd;
      const auto& all = after.layers.ioLimits;
      auto now =
          std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.fd == old.fd; });
      if (now == all.end()) {
        add(name + ": none");
        continue;
      }
      compareLayer(name, old.layer, now->layer);
      bool isLooser = isLooserRate(old.readBytesPerSecond, now->readBytesPerSecond) ||
                      isLooserRate(old.writeBytesPerSecond, now->writeBytesPerSecond) ||
                      isLooserRate(old.readsPerSecond, now->readsPerSecond) ||
                      isLooserRate(old.writesPerSecond, now->writesPerSecond);
      if (isLooser) add(name + ": more than it was");
    }
  }

  const Policy& before;
  const Policy& after;
  std::vector<std::string> found;
};

}  // namespace

std::vector<std::string> looserParts(const Policy& before, const Policy& after) {
  return Comparison(before, after).parts();
}

}  // namespace troupe::sandbox
