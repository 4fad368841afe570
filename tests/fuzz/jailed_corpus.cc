#include "tests/fuzz/jailed_corpus.h"

#include <filesystem>
#include <fstream>
#include <iterator>

namespace troupe::fuzz {
namespace {

constexpr uint32_t MAX_PHRASES = 6;

uint8_t magnitude(kj::byte count) {
  constexpr kj::byte LIMITS[] = {1, 2, 3, 7, 15, 31, 127, 255};
  for (int i = 0; i < 8; i++)
    if (count <= LIMITS[i]) return uint8_t(1 << i);
  return 0x80;
}

std::vector<Op> fresh(Random& random) {
  std::vector<Op> ops;
  for (uint32_t i = below(random, MAX_PHRASES) + 1; i > 0; i--) {
    auto more = phrase(random);
    ops.insert(ops.end(), more.begin(), more.end());
  }
  return ops;
}

}  // namespace

void JailedCorpus::load(const std::string& folder) {
  for (auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    inputs.push_back(
        decode(kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size())));
  }
}

std::vector<Op> JailedCorpus::next(Random& random) const {
  bool isFresh = inputs.empty() || below(random, 4) == 0;
  auto ops = isFresh ? fresh(random) : inputs[below(random, inputs.size())];
  for (uint32_t i = below(random, 4) + !isFresh; i > 0; i--)
    mutate(random, ops);
  if (ops.size() > MAX_OPS) ops.resize(MAX_OPS);
  return ops;
}

void JailedCorpus::tried(const std::vector<Op>& ops, kj::ArrayPtr<const kj::byte> counts) {
  bool isNew = false;
  for (size_t i = 0; i < counts.size(); i++) {
    if (counts[i] == 0) continue;
    uint8_t bit = magnitude(counts[i]);
    if (seen[i] & bit) continue;
    edgeCount += seen[i] == 0;
    seen[i] |= bit;
    isNew = true;
  }
  if (!isNew) return;
  inputs.push_back(ops);
  if (kept.empty()) return;
  std::ofstream(kept + "/" + std::to_string(inputs.size()), std::ios::binary)
      .write(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(Op));
}

}  // namespace troupe::fuzz
