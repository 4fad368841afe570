#include "broker/bus.h"

#include <gtest/gtest.h>

#include <vector>

namespace troupe::broker {
namespace {

class Recorder final: public BusDevice {
 public:
  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override {
    offsets.push_back(offset);
    for (auto& byte : data)
      byte = 0x5a;
  }
  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte>) override {
    offsets.push_back(offset);
  }
  std::vector<uint64_t> offsets;
};

uint32_t read32(Bus& bus, uint64_t address) {
  uint32_t value = 0;
  bus.read(address, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), sizeof(value)));
  return value;
}

TEST(Bus, GivesAccessesToTheDeviceOfTheRange) {
  Bus bus;
  Recorder low, high;
  ASSERT_TRUE(bus.add(0x2000, 0x100, high));
  ASSERT_TRUE(bus.add(0x1000, 0x100, low));
  EXPECT_EQ(read32(bus, 0x10fc), 0x5a5a5a5au);
  EXPECT_EQ(read32(bus, 0x2004), 0x5a5a5a5au);
  EXPECT_EQ(low.offsets, std::vector<uint64_t>{0xfc});
  EXPECT_EQ(high.offsets, std::vector<uint64_t>{4});
}

TEST(Bus, AnswersAllOnesWhereNobodyLives) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.add(0x1000, 0x100, device));
  EXPECT_EQ(read32(bus, 0xffc), 0xffffffffu);
  EXPECT_EQ(read32(bus, 0x10fd), 0xffffffffu);  // passes the end
  EXPECT_EQ(read32(bus, 0x1100), 0xffffffffu);
  EXPECT_EQ(read32(bus, ~0ull), 0xffffffffu);
  EXPECT_TRUE(device.offsets.empty());
}

TEST(Bus, RefusesOverlappingAndWrappingRanges) {
  Bus bus;
  Recorder device;
  EXPECT_TRUE(bus.add(0x1000, 0x100, device));
  EXPECT_FALSE(bus.add(0x10ff, 1, device));
  EXPECT_FALSE(bus.add(0xfff, 2, device));
  EXPECT_FALSE(bus.add(0, ~0ull, device));
  EXPECT_FALSE(bus.add(~0ull, 2, device));
  EXPECT_FALSE(bus.add(0x3000, 0, device));
  EXPECT_TRUE(bus.add(~0ull, 1, device));
  EXPECT_TRUE(bus.add(0x1100, 1, device));
}

TEST(Bus, ForgetsARemovedRange) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.add(0x1000, 0x100, device));
  bus.remove(0x1000);
  EXPECT_EQ(read32(bus, 0x1000), 0xffffffffu);
  EXPECT_TRUE(bus.add(0x1080, 0x100, device));
}

// A BAR that moves is a device changing the bus from inside its own call.
TEST(Bus, MayBeChangedByADeviceThatIsBeingCalled) {
  class Mover final: public BusDevice {
   public:
    explicit Mover(Bus& bus) : bus(bus) {}
    void busRead(uint64_t, kj::ArrayPtr<kj::byte>) override {}
    void busWrite(uint64_t, kj::ArrayPtr<const kj::byte>) override {
      bus.remove(0x1000);
      moved = bus.add(0x8000, 0x100, *this);
    }
    Bus& bus;
    bool moved = false;
  };
  Bus bus;
  Mover mover(bus);
  ASSERT_TRUE(bus.add(0x1000, 0x100, mover));
  kj::byte byte = 0;
  bus.write(0x1000, kj::arrayPtr(&byte, 1));
  EXPECT_TRUE(mover.moved);
}

}  // namespace
}  // namespace troupe::broker
