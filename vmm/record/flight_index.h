#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "vmm/record/recording_reader.h"

namespace troupe {

// Which chain of one process: the queue's index, and the chain's number.
struct ChainKey {
  uint16_t queue;
  uint64_t number;
  bool operator<(const ChainKey& other) const {
    return std::tie(queue, number) < std::tie(other.queue, other.number);
  }
};

// Where in the events of one process is what was said of each chain.
class FlightIndex {
 public:
  // Looks at the events that came since, up to the beginning of another process. Throws kj
  // exceptions for those that make no sense.
  void update(const EventList& events);

  struct Chain {
    std::vector<size_t> taken;
    std::vector<size_t> called;
    std::vector<size_t> answered;
  };
  // None has an empty one.
  const Chain& chain(const ChainKey& key) const;
  const std::map<ChainKey, Chain>& chains() const { return known; }
  const std::vector<size_t>& configChanges() const { return changes; }
  const std::vector<size_t>& resetsAsked() const { return resets; }
  const std::vector<size_t>& reportsAsked() const { return reports; }
  bool hasBegun() const { return began; }
  // Behind the last event of the process.
  size_t end() const { return seen; }

 private:
  std::map<ChainKey, Chain> known;
  std::vector<size_t> changes, resets, reports;
  bool began = false;
  size_t seen = 0;
};

}  // namespace troupe
