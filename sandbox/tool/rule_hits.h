#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/watch/call_record.h"

namespace troupe::sandbox {

// How often the rules of profiles allowed a call.
class RuleHits {
 public:
  // Counts what `records` hold of the actor of `policy`, which is that of this build. A call that
  // several rules allow counts for each of them.
  void add(const Policy& policy, const std::vector<CallRecord>& records);

  // As text, to be added to what later runs count: a line for each rule that was used.
  std::string text() const;

  // Adds what text() wrote; false where `text` is none of it.
  bool addText(const std::string& text);

  // Every rule of every actor with its hits.
  std::string table(const std::vector<Policy>& policies) const;
  std::string json(const std::vector<Policy>& policies) const;

  // Rules that were never used, among those of actors of which calls were counted.
  std::string unused(const std::vector<Policy>& policies) const;

  bool empty() const { return counts.empty(); }

 private:
  // A rule where it holds, by what stays the same when lines are added elsewhere.
  struct Key {
    std::string actor, filter, file, call, conditions;
    bool operator<(const Key& other) const;
  };
  // By the filter in force when the call was made.
  enum Stage { START, READY, RUN, STAGES };
  struct Count {
    uint64_t in[STAGES] = {};
    uint64_t total() const { return in[START] + in[READY] + in[RUN]; }
  };

  static Key keyOf(const Policy& policy, const std::string& filter, const PolicyRule& rule);
  // Each rule once, under the widest filter that has it: "process" or "thread:NAME".
  static std::vector<std::pair<Key, const PolicyRule*>> rulesOf(const Policy& policy);
  Count countOf(const Key& key) const;
  bool hasRun(const Policy& policy) const;

  std::map<Key, Count> counts;
};

}  // namespace troupe::sandbox
