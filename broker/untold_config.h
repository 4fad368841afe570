#pragma once

#include <kj/array.h>

#include <bitset>
#include <cstdint>

#include "broker/device_answers.h"

namespace troupe::broker {

// Bytes of its configuration space that a device has yet to be told. What is written meanwhile is
// merged by offset, so a driver that writes without end makes it no larger.
class UntoldConfig {
 public:
  // What passes the largest configuration space is dropped.
  void add(uint32_t offset, kj::ArrayPtr<const kj::byte> data);

  bool empty() const { return untold.none(); }

  // Takes the first run of such bytes, valid until the next add(). There must be one.
  kj::ArrayPtr<const kj::byte> take(uint32_t& offset);

 private:
  kj::byte bytes[MAX_CONFIG_SIZE];
  std::bitset<MAX_CONFIG_SIZE> untold;
};

}  // namespace troupe::broker
