#include "broker/panic_port.h"

#include <gtest/gtest.h>

namespace troupe::broker {
namespace {

struct Bench {
  void write(uint8_t value) { port.busWrite(0, kj::arrayPtr(&value, 1)); }

  int panics = 0;
  PanicPort port{[this]() { ++panics; }};
};

TEST(PanicPort, OffersBothEvents) {
  Bench bench;
  uint8_t value = 0;
  bench.port.busRead(0, kj::arrayPtr(&value, 1));
  EXPECT_EQ(value, 3);
}

TEST(PanicPort, TellsAPanicAndNothingElse) {
  Bench bench;
  for (int value = 0; value < 256; ++value)
    bench.write(value);
  EXPECT_EQ(bench.panics, 128);
  bench.write(PanicPort::CRASH_LOADED);
  EXPECT_EQ(bench.panics, 128);
}

}  // namespace
}  // namespace troupe::broker
