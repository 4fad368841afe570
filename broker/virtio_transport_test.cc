#include "broker/virtio_transport.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <vector>

#include "broker/msix.h"
#include "broker/pci_fakes.h"

namespace troupe::broker {
namespace {

constexpr uint16_t QUEUE_MAX = 256;
constexpr uint16_t VECTORS = 3;
constexpr uint8_t READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

using Image = std::array<kj::byte, COMMON_SIZE>;

// A driver's view of a transport with two queues of 256 and 16 bytes of configuration.
struct Driver {
  explicit Driver(const DeviceDescription& device = describe(2, {QUEUE_MAX, QUEUE_MAX}))
      : transport(device, VECTORS) {}
  VirtioTransport transport;

  TransportAction write(uint64_t offset, uint64_t value, size_t width) {
    return transport.writeCommon(offset, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), width));
  }
  uint64_t read(uint64_t offset, size_t width) {
    uint64_t value = 0;
    transport.readCommon(offset, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), width));
    return value;
  }
  TransportAction status(uint8_t value) { return write(DEVICE_STATUS, value, 1); }
  uint8_t status() { return read(DEVICE_STATUS, 1); }

  void acceptFeatures(uint64_t features) {
    for (uint32_t select : {0, 1}) {
      write(DRIVER_FEATURE_SELECT, select, 4);
      write(DRIVER_FEATURE, features >> 32 * select & 0xffffffff, 4);
    }
  }
  void negotiate() {
    status(STATUS_ACKNOWLEDGE);
    status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    acceptFeatures(FEATURE_VERSION_1 | 1);
    status(READY);
  }
  void enable(uint16_t queue) {
    write(QUEUE_SELECT, queue, 2);
    write(QUEUE_SIZE, 64, 2);
    write(QUEUE_DESC, 0x1000, 8);
    write(QUEUE_DRIVER, 0x2000, 8);
    write(QUEUE_DEVICE, 0x3000, 8);
    write(QUEUE_ENABLE, 1, 2);
  }
  TransportAction start() {
    negotiate();
    enable(0);
    return status(READY | STATUS_DRIVER_OK);
  }
  Image image() {
    Image image;
    transport.readCommon(0, kj::arrayPtr(image.data(), image.size()));
    return image;
  }
};

// The stages a driver goes through, with what may be changed in each.
struct Stage {
  const char* name;
  std::function<void(Driver&)> enter;
  bool featuresOpen;
  bool queueOpen;  // queue 0 is selected in all of them
  bool deaf;       // being reset
};

const std::vector<Stage>& stages() {
  static const std::vector<Stage> all = {
      {"reset", [](Driver&) {}, true, true, false},
      {"acknowledge", [](Driver& d) { d.status(STATUS_ACKNOWLEDGE); }, true, true, false},
      {"driver", [](Driver& d) { d.status(STATUS_ACKNOWLEDGE | STATUS_DRIVER); }, true, true,
       false},
      {"features ok", [](Driver& d) { d.negotiate(); }, false, true, false},
      {"queue enabled",
       [](Driver& d) {
         d.negotiate();
         d.enable(0);
       },
       false, false, false},
      {"driver ok", [](Driver& d) { EXPECT_EQ(d.start(), TransportAction::ACTIVATE); }, false,
       false, false},
      {"failed while running",
       [](Driver& d) {
         d.start();
         d.status(d.status() | STATUS_FAILED);
       },
       false, false, false},
      {"failed before features", [](Driver& d) { d.status(STATUS_FAILED); }, true, true, false},
      {"needs reset",
       [](Driver& d) {
         d.start();
         EXPECT_TRUE(d.transport.needsReset());
       },
       false, false, false},
      {"being reset",
       [](Driver& d) {
         d.start();
         EXPECT_EQ(d.status(0), TransportAction::RESET);
       },
       false, false, true},
  };
  return all;
}

// What the registers must read after a write in a stage, from the tables of §4.1.4.3: the field,
// when it is open, and nothing else. The status register has a test of its own.
Image expectedAfter(const Stage& stage, Image image, uint64_t offset, uint64_t value,
                    size_t width) {
  auto put = [&](bool open, uint64_t newValue) {
    if (open && !stage.deaf) memcpy(&image[offset], &newValue, width);
    return image;
  };
  bool isSize = value == 1 || value == 2 || value == 256;  // of the values below
  if (width == 4) {
    if (offset == DEVICE_FEATURE_SELECT && !stage.deaf) {
      uint64_t offered = FEATURES_FOR_TESTS | FEATURE_VERSION_1;
      uint32_t shown = value == 0 ? offered : value == 1 ? offered >> 32 : 0;
      memcpy(&image[DEVICE_FEATURE], &shown, 4);
      return put(true, value);
    }
    if (offset == DRIVER_FEATURE_SELECT && !stage.deaf) {
      uint64_t accepted = stage.featuresOpen ? 0 : FEATURE_VERSION_1 | 1;
      uint32_t shown = value == 0 ? accepted : value == 1 ? accepted >> 32 : 0;
      memcpy(&image[DRIVER_FEATURE], &shown, 4);
      return put(true, value);
    }
    if (offset == DRIVER_FEATURE) return put(stage.featuresOpen, value);
    if (offset >= QUEUE_DESC && offset < COMMON_SIZE && offset % 4 == 0) {
      return put(stage.queueOpen, value);
    }
  }
  if (width == 8 && offset >= QUEUE_DESC && offset < COMMON_SIZE && offset % 8 == 0) {
    return put(stage.queueOpen, value);
  }
  if (width == 2) {
    if (offset == CONFIG_MSIX_VECTOR || offset == QUEUE_MSIX_VECTOR) {
      return put(true, value < VECTORS ? value : NO_VECTOR);
    }
    if (offset == QUEUE_SIZE) return put(stage.queueOpen && isSize, value);
    if (offset == QUEUE_ENABLE) return put(stage.queueOpen && value == 1, value);
  }
  return image;
}

TEST(VirtioTransport, PCI01EveryRegisterWriteInEveryStageChangesExactlyWhatTheSpecAllows) {
  const uint64_t values[] = {0, 1, 2, 3, 256, 257, 0xffff, 0xffffffff, 0x123456789abcdef0};
  for (auto& stage : stages()) {
    for (uint64_t offset = 0; offset < COMMON_SIZE + 16; ++offset) {
      for (size_t width : {1, 2, 4, 8}) {
        if (offset == DEVICE_STATUS && width == 1) continue;
        if (offset == QUEUE_SELECT && width == 2) continue;  // changes what is seen; PCI-02
        for (uint64_t value : values) {
          uint64_t truncated = width == 8 ? value : value & ((uint64_t(1) << 8 * width) - 1);
          Driver driver;
          stage.enter(driver);
          Image before = driver.image();
          auto action = driver.write(offset, truncated, width);
          EXPECT_EQ(driver.image(), expectedAfter(stage, before, offset, truncated, width))
              << stage.name << " offset " << offset << " width " << width << " value " << truncated;
          bool isVector =
              width == 2 && (offset == CONFIG_MSIX_VECTOR || offset == QUEUE_MSIX_VECTOR);
          EXPECT_EQ(action,
                    isVector && !stage.deaf ? TransportAction::VECTORS : TransportAction::NONE);
        }
      }
    }
  }
}

TEST(VirtioTransport, PCI01EveryStatusValueInEveryStageGoesWhereTheSpecAllows) {
  for (auto& stage : stages()) {
    for (bool isAcceptable : {false, true}) {
      for (uint32_t value = 1; value < 256; ++value) {
        Driver driver;
        stage.enter(driver);
        if (isAcceptable) driver.acceptFeatures(FEATURE_VERSION_1 | 1);
        uint8_t before = driver.status();
        auto action = driver.status(value);
        uint8_t after = driver.status();

        if (stage.deaf) {
          EXPECT_EQ(after, before);
          EXPECT_EQ(action, TransportAction::NONE);
          continue;
        }
        // §2.1.1: no bit is ever cleared, and NEEDS_RESET is the device's.
        EXPECT_EQ(after & before, before);
        EXPECT_EQ(after & ~before & (STATUS_DEVICE_NEEDS_RESET | 0x30), 0);
        EXPECT_EQ(after & ~before & ~value, 0);
        uint8_t simple = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FAILED;
        EXPECT_EQ(after & simple, (before | value) & simple);

        bool isKnown = (after & 3) == 3;
        bool isDead = (after & (STATUS_FAILED | STATUS_DEVICE_NEEDS_RESET)) != 0;
        bool getsFeatures = isKnown && !isDead && isAcceptable && (value & STATUS_FEATURES_OK) != 0;
        EXPECT_EQ((after & STATUS_FEATURES_OK) != 0,
                  getsFeatures || (before & STATUS_FEATURES_OK) != 0)
            << stage.name << " value " << value;
        bool starts = !isDead && (before & STATUS_FEATURES_OK) != 0 &&
                      (before & STATUS_DRIVER_OK) == 0 && (value & STATUS_DRIVER_OK) != 0;
        EXPECT_EQ(action, starts ? TransportAction::ACTIVATE : TransportAction::NONE)
            << stage.name << " value " << value;
        EXPECT_EQ((after & STATUS_DRIVER_OK) != 0, starts || (before & STATUS_DRIVER_OK) != 0);
      }
    }
  }
}

TEST(VirtioTransport, PCI01StatusIsOneByteWide) {
  for (size_t width : {2, 4, 8}) {
    Driver driver;
    driver.negotiate();
    EXPECT_EQ(driver.write(DEVICE_STATUS, 0, width), TransportAction::NONE);
    EXPECT_EQ(driver.status(), READY);
    EXPECT_EQ(driver.read(DEVICE_STATUS, width) & 0xff, READY);  // but reads of any width show it
  }
}

TEST(VirtioTransport, PCI02ASelectorBeyondTheQueuesFindsAnEmptyQueueThatTakesNoWrite) {
  for (uint32_t select : {2u, 3u, 31u, 0x7fffu, 0x8000u, 0xffffu}) {
    for (uint32_t offset = QUEUE_SIZE; offset < COMMON_SIZE; offset += 2) {
      for (size_t width : {2, 4, 8}) {
        Driver driver;
        driver.negotiate();
        driver.write(QUEUE_SELECT, select, 2);
        Image before = driver.image();
        driver.write(offset, 1, width);
        EXPECT_EQ(driver.image(), before);
        EXPECT_EQ(driver.read(QUEUE_SIZE, 2), 0);
        EXPECT_EQ(driver.read(QUEUE_ENABLE, 2), 0);
        EXPECT_EQ(driver.read(QUEUE_MSIX_VECTOR, 2), NO_VECTOR);
        EXPECT_EQ(driver.read(QUEUE_DESC, 8), 0);
        driver.status(READY | STATUS_DRIVER_OK);
        EXPECT_EQ(driver.transport.enabledQueues().size(), 0);
      }
    }
  }
}

TEST(VirtioTransport, PCI03FeaturesMustContainVersion1AndNothingThatIsNotOffered) {
  const uint64_t refused[] = {0,
                              1,
                              FEATURE_VERSION_1 | 8,
                              FEATURE_VERSION_1 | uint64_t(1) << 38,
                              FEATURE_VERSION_1 | uint64_t(1) << 34,
                              ~uint64_t(0)};
  for (uint64_t features : refused) {
    Driver driver;
    driver.status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    driver.acceptFeatures(features);
    driver.status(READY);
    EXPECT_EQ(driver.status(), STATUS_ACKNOWLEDGE | STATUS_DRIVER) << features;
    EXPECT_EQ(driver.status(READY | STATUS_DRIVER_OK), TransportAction::NONE);
    // It may try again with less.
    driver.acceptFeatures(FEATURE_VERSION_1);
    driver.status(READY);
    EXPECT_EQ(driver.status(), READY);
  }
}

TEST(VirtioTransport, PCI03FeaturesWrittenAfterFeaturesOkDoNotCount) {
  Driver driver;
  driver.negotiate();
  driver.acceptFeatures(~uint64_t(0));
  driver.status(READY | STATUS_DRIVER_OK);
  EXPECT_EQ(driver.transport.features(), FEATURE_VERSION_1 | 1);
}

TEST(VirtioTransport, PCI03OneWriteOfEverythingDoesNotStartTheDevice) {
  Driver driver;
  driver.acceptFeatures(FEATURE_VERSION_1);
  EXPECT_EQ(driver.status(READY | STATUS_DRIVER_OK), TransportAction::NONE);
  EXPECT_EQ(driver.status(), READY);
}

TEST(VirtioTransport, PCI03DriverOkTwiceStartsOnce) {
  Driver driver;
  EXPECT_EQ(driver.start(), TransportAction::ACTIVATE);
  EXPECT_EQ(driver.status(READY | STATUS_DRIVER_OK), TransportAction::NONE);
}

TEST(VirtioTransport, OffersWhatTheDeviceHasLessWhatItCannotCarry) {
  DeviceDescription description = describe(2, {QUEUE_MAX});
  description.features = ~uint64_t(0);
  Driver driver(description);
  driver.write(DEVICE_FEATURE_SELECT, 1, 4);
  uint32_t high = driver.read(DEVICE_FEATURE, 4);
  EXPECT_EQ(high, 0xfffc0000 | 1 | 1 << 3);  // device bits 50 on, VERSION_1, IN_ORDER
}

TEST(VirtioTransport, DriverOkLatchesTheEnabledQueuesOnly) {
  Driver driver;
  driver.negotiate();
  driver.write(QUEUE_SELECT, 1, 2);
  driver.write(QUEUE_SIZE, 8, 2);
  driver.write(QUEUE_DESC, 0x11112222, 4);
  driver.write(QUEUE_DESC + 4, 0x33334444, 4);
  driver.write(QUEUE_DRIVER, 0xfffffffffffff000, 8);
  driver.write(QUEUE_DEVICE, 0x5555, 8);
  driver.write(QUEUE_ENABLE, 1, 2);
  driver.status(READY | STATUS_DRIVER_OK);

  auto queues = driver.transport.enabledQueues();
  ASSERT_EQ(queues.size(), 1);
  EXPECT_EQ(queues[0].index, 1);
  EXPECT_EQ(queues[0].size, 8);
  EXPECT_EQ(queues[0].descriptorTable, 0x3333444411112222);
  EXPECT_EQ(queues[0].availableRing, 0xfffffffffffff000);
  EXPECT_EQ(queues[0].usedRing, 0x5555);
}

TEST(VirtioTransport, RST01AResetReadsBackNonZeroUntilTheDeviceHasLetGo) {
  Driver driver;
  driver.start();
  EXPECT_EQ(driver.status(0), TransportAction::RESET);
  EXPECT_EQ(driver.status(), READY | STATUS_DRIVER_OK);
  EXPECT_EQ(driver.status(0), TransportAction::NONE);  // one reset at a time
  EXPECT_FALSE(driver.transport.active());
  EXPECT_FALSE(driver.transport.needsReset());
  EXPECT_TRUE(driver.transport.resetDone());
  EXPECT_EQ(driver.image(), Driver().image());
  EXPECT_EQ(driver.start(), TransportAction::ACTIVATE);  // and the next driver finds it well
}

TEST(VirtioTransport, RST01AResetOfAnInactiveDeviceIsDoneAtOnce) {
  Driver driver;
  driver.negotiate();
  driver.enable(0);
  EXPECT_EQ(driver.status(0), TransportAction::CLEARED);
  EXPECT_EQ(driver.image(), Driver().image());
}

// Ring reset (§2.6.1) is offered by nobody, also not by a device that wants to: a driver cannot
// take the feature, and where its register would be there is none.
TEST(VirtioTransport, RST03NoQueueIsResetOrDisabledByItself) {
  constexpr uint64_t FEATURE_RING_RESET = uint64_t(1) << 40;
  constexpr uint32_t QUEUE_RESET = 0x3a;
  auto eager = describe(2, {QUEUE_MAX, QUEUE_MAX});
  eager.features |= FEATURE_RING_RESET;
  Driver driver(eager);
  driver.write(DEVICE_FEATURE_SELECT, 1, 4);
  EXPECT_EQ(driver.read(DEVICE_FEATURE, 4) & FEATURE_RING_RESET >> 32, 0);

  driver.status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
  driver.acceptFeatures(FEATURE_VERSION_1 | FEATURE_RING_RESET);
  driver.status(READY);
  EXPECT_EQ(driver.status(), STATUS_ACKNOWLEDGE | STATUS_DRIVER);

  driver.status(0);
  driver.start();
  auto before = driver.image();
  EXPECT_EQ(driver.write(QUEUE_RESET, 1, 2), TransportAction::NONE);
  EXPECT_EQ(driver.read(QUEUE_RESET, 2), 0);
  EXPECT_EQ(driver.write(QUEUE_ENABLE, 0, 2), TransportAction::NONE);
  EXPECT_EQ(driver.image(), before);
}

TEST(VirtioTransport, AResetDoneNobodyAskedForChangesNothing) {
  Driver driver;
  driver.start();
  Image before = driver.image();
  EXPECT_FALSE(driver.transport.resetDone());
  EXPECT_EQ(driver.image(), before);
}

TEST(VirtioTransport, NeedsResetIsShownOnlyToARunningDriver) {
  Driver driver;
  driver.negotiate();
  EXPECT_FALSE(driver.transport.needsReset());
  driver.enable(0);
  driver.status(READY | STATUS_DRIVER_OK);
  EXPECT_TRUE(driver.transport.needsReset());
  EXPECT_EQ(driver.status(), READY | STATUS_DRIVER_OK | STATUS_DEVICE_NEEDS_RESET);
}

TEST(VirtioTransport, CFG01EveryReadOfTheConfigurationGivesItsBytesAndZeroesPastTheEnd) {
  Driver driver;
  for (uint64_t offset = 0; offset < 40; ++offset) {
    for (size_t width : {1, 2, 4, 8}) {
      kj::byte data[8];
      memset(data, 0x55, sizeof data);
      driver.transport.readConfig(offset, kj::arrayPtr(data, width));
      for (size_t i = 0; i < width; ++i) {
        EXPECT_EQ(data[i], offset + i < 16 ? 0xa0 + offset + i : 0);
      }
      EXPECT_TRUE(width == 8 || data[width] == 0x55);
    }
  }
  kj::byte last = 0x55;
  driver.transport.readConfig(~uint64_t(0), kj::arrayPtr(&last, 1));
  EXPECT_EQ(last, 0);
}

TEST(VirtioTransport, CFG01EveryWriteOfTheConfigurationStaysWithinItsMask) {
  for (uint64_t offset = 0; offset < 40; ++offset) {
    for (size_t width : {1, 2, 4, 8}) {
      Driver driver;
      kj::byte ones[8];
      memset(ones, 0xff, sizeof ones);
      size_t told = driver.transport.writeConfig(offset, kj::arrayPtr(ones, width));
      bool isAnyWritable = false;
      for (size_t i = 0; i < 16; ++i) {
        bool isWritten = i >= offset && i < offset + width && i % 8 >= 4;
        isAnyWritable |= isWritten;
        EXPECT_EQ(driver.transport.configBytes()[i], isWritten ? 0xff : 0xa0 + i);
      }
      EXPECT_EQ(told, isAnyWritable ? std::min<size_t>(width, 16 - offset) : 0);
    }
  }
}

TEST(VirtioTransport, CFG01AChangeByTheDeviceAdvancesTheGenerationAndOneTooLongDoesNot) {
  Driver driver;
  kj::byte bytes[17] = {1, 2, 3};
  EXPECT_TRUE(driver.transport.configChanged(13, kj::arrayPtr(bytes, 3)));
  EXPECT_EQ(driver.read(CONFIG_GENERATION, 1), 1);
  EXPECT_EQ(driver.transport.configBytes()[15], 3);
  EXPECT_FALSE(driver.transport.configChanged(14, kj::arrayPtr(bytes, 3)));
  EXPECT_FALSE(driver.transport.configChanged(0, kj::arrayPtr(bytes, 17)));
  EXPECT_FALSE(driver.transport.configChanged(0xffffffff, kj::arrayPtr(bytes, 1)));
  EXPECT_FALSE(driver.transport.configChanged(~uint64_t(0), kj::arrayPtr(bytes, 2)));
  EXPECT_EQ(driver.read(CONFIG_GENERATION, 1), 1);
}

TEST(VirtioTransport, NTF01OnlyTheStartOfAQueuesSlotNotifies) {
  Driver driver;
  for (uint64_t offset = 0; offset < 64; ++offset) {
    auto queue = driver.transport.notifiedQueue(offset);
    if (offset == 0 || offset == 4) {
      EXPECT_EQ(KJ_ASSERT_NONNULL(queue), offset / 4);
    } else {
      EXPECT_TRUE(queue == nullptr) << offset;
    }
  }
  EXPECT_TRUE(driver.transport.notifiedQueue(~uint64_t(3)) == nullptr);
}

}  // namespace
}  // namespace troupe::broker
