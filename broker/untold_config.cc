#include "broker/untold_config.h"

namespace troupe::broker {

void UntoldConfig::add(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  for (size_t i = 0; i < data.size() && offset + i < MAX_CONFIG_SIZE; ++i) {
    bytes[offset + i] = data[i];
    untold.set(offset + i);
  }
}

kj::ArrayPtr<const kj::byte> UntoldConfig::take(uint32_t& offset) {
  offset = 0;
  while (!untold.test(offset))
    ++offset;
  uint32_t end = offset;
  while (end < MAX_CONFIG_SIZE && untold.test(end))
    untold.reset(end++);
  return kj::arrayPtr(bytes + offset, end - offset);
}

}  // namespace troupe::broker
