#include "vmm/record/flight_index.h"

namespace troupe {

void FlightIndex::update(const EventList& events) {
  bool isAnother = false;
  while (seen < events.size() && !isAnother) {
    events.with(seen, [&](FlightEvent::Reader event) {
      switch (event.which()) {
        case FlightEvent::BEGAN:
          isAnother = began;
          began = true;
          break;
        case FlightEvent::TAKEN: {
          auto chain = event.getTaken();
          known[{chain.getQueue(), chain.getNumber()}].taken.push_back(seen);
          break;
        }
        case FlightEvent::CALLED: {
          auto call = event.getCalled();
          known[{call.getQueue(), call.getNumber()}].called.push_back(seen);
          break;
        }
        case FlightEvent::ANSWERED: {
          auto chain = event.getAnswered();
          known[{chain.getQueue(), chain.getNumber()}].answered.push_back(seen);
          break;
        }
        case FlightEvent::CONFIG_CHANGED:
          changes.push_back(seen);
          break;
        case FlightEvent::NEEDS_RESET:
          resets.push_back(seen);
          break;
        case FlightEvent::REPORT_ASKED:
          reports.push_back(seen);
          break;
        default:
          break;
      }
    });
    if (!isAnother) seen++;
  }
}

const FlightIndex::Chain& FlightIndex::chain(const ChainKey& key) const {
  static const Chain NONE;
  auto found = known.find(key);
  return found == known.end() ? NONE : found->second;
}

}  // namespace troupe
