#pragma once

#include <string>
#include <vector>

#include "tests/fuzz/coverage.h"
#include "tests/fuzz/op_generator.h"

namespace troupe::fuzz {

// The inputs that reached something new, to begin from.
class JailedCorpus {
 public:
  // Every file of `folder`, which has to be there.
  void load(const std::string& folder);
  // What is new from now on is kept there too.
  void keepIn(const std::string& folder) { kept = folder; }

  // One to try: a fresh one, or another one changed.
  std::vector<Op> next(Random& random) const;
  // `counts`: what it reached.
  void tried(const std::vector<Op>& ops, kj::ArrayPtr<const kj::byte> counts);

  size_t size() const { return inputs.size(); }
  size_t edges() const { return edgeCount; }

 private:
  std::vector<std::vector<Op>> inputs;
  std::string kept;
  // By edge: a bit for each order of magnitude of times that one input took it.
  std::vector<uint8_t> seen = std::vector<uint8_t>(coverage::BYTES);
  size_t edgeCount = 0;
};

}  // namespace troupe::fuzz
