#include "devices/console/open_state.h"

namespace troupe::console {

void OpenState::set(bool isNowOpen) {
  if (isNowOpen == open) return;
  open = isNowOpen;
  if (open) ++openingCount;
  changed.raise();
}

kj::Promise<void> OpenState::whenOpen() {
  if (open) return kj::READY_NOW;
  return changed.wait().then([this]() { return whenOpen(); });
}

}  // namespace troupe::console
