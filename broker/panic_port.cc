#include "broker/panic_port.h"

#include <cstring>

namespace troupe::broker {

PanicPort::PanicPort(kj::Function<void()> panicked) : panicked(kj::mv(panicked)) {}

void PanicPort::busRead(uint64_t, kj::ArrayPtr<kj::byte> data) {
  memset(data.begin(), 0, data.size());
  data[0] = PANICKED | CRASH_LOADED;
}

void PanicPort::busWrite(uint64_t, kj::ArrayPtr<const kj::byte> data) {
  if ((data[0] & PANICKED) != 0) panicked();
}

}  // namespace troupe::broker
