#include "broker/host_memory.h"

#include <gtest/gtest.h>
#include <kj/exception.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "broker/memory_map.h"

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE = 4096;
constexpr uint64_t HIGH = 16 * GIB;

std::string refusal(std::initializer_list<HostRegion> regions) {
  auto ram = ramRegions(64 * MIB);
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                 checkHostRegions(kj::arrayPtr(regions.begin(), regions.size()), ram);
               })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(HostRegions, LieWhereNothingElseDoes) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(refusal({{HIGH, MIB, 0, 0}, {64 * MIB, PAGE, 8 * PAGE, 1}, {HIGH + MIB, PAGE, 0, 2}}),
            "");
  EXPECT_EQ(refusal({{LOW_RAM_END - PAGE, PAGE, 0, 0}, {HIGH_RAM_START, PAGE, 0, 0}}), "");
  EXPECT_EQ(refusal({{RAM_LIMIT - PAGE, PAGE, 0, 0}}), "");
}

TEST(HostRegions, AreRefusedElsewhere) {
  struct Case {
    HostRegion region;
    const char* why;
  };
  for (auto& one : std::initializer_list<Case>{
           {{HIGH, 0, 0, 0}, "is empty"},
           {{HIGH + 1, PAGE, 0, 0}, "whole pages"},
           {{HIGH, 100, 0, 0}, "whole pages"},
           {{HIGH, PAGE, 512, 0}, "whole pages"},
           {{64 * MIB - PAGE, PAGE, 0, 0}, "the guest's own RAM"},
           {{0, PAGE, 0, 0}, "the guest's own RAM"},
           {{32 * MIB, 64 * MIB, 0, 0}, "the guest's own RAM"},
           {{LOW_RAM_END, PAGE, 0, 0}, "addresses of devices"},
           {{HIGH_RAM_START - PAGE, 2 * PAGE, 0, 0}, "addresses of devices"},
           {{LOW_RAM_END - PAGE, 2 * GIB, 0, 0}, "addresses of devices"},
           {{RAM_LIMIT, PAGE, 0, 0}, "beyond 1 TiB"},
           {{~(PAGE - 1), 2 * PAGE, 0, 0}, "beyond 1 TiB"},
           {{HIGH, ~(PAGE - 1), 0, 0}, "beyond 1 TiB"},
           {{HIGH, PAGE, ~(PAGE - 1), 0}, "beyond the end of any file"}}) {
    auto text = refusal({one.region});
    EXPECT_EQ(text.find("TRP-cfg-106: "), 0u) << one.why << text;
    EXPECT_NE(text.find(one.why), std::string::npos) << one.why << text;
  }
  auto two = refusal({{HIGH, 2 * PAGE, 0, 0}, {HIGH + PAGE, PAGE, 0, 1}});
  EXPECT_NE(two.find("another such region"), std::string::npos) << two;
  auto many = kj::heapArray<HostRegion>(MOST_HOST_REGIONS + 1);
  for (auto i : kj::indices(many))
    many[i] = HostRegion{HIGH + i * PAGE, PAGE, 0, 0};
  EXPECT_ANY_THROW(checkHostRegions(many, nullptr));
  checkHostRegions(many.slice(0, MOST_HOST_REGIONS), nullptr);
}

TEST(HostMemory, IsThePieceOfTheFileThatWasAskedFor) {
  int file = memfd_create("host", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(file, 4 * PAGE), 0);
  ASSERT_EQ(pwrite(file, "third", 5, 2 * PAGE), 5);
  auto regions = kj::heapArray<HostRegion>(1);
  regions[0] = HostRegion{HIGH, 2 * PAGE, 2 * PAGE, file};
  HostMemory memory(kj::mv(regions));
  EXPECT_STREQ(static_cast<const char*>(memory.mapping(0)), "third");
  static_cast<char*>(memory.mapping(0))[PAGE] = 'x';
  char found = 0;
  ASSERT_EQ(pread(file, &found, 1, 3 * PAGE), 1);
  EXPECT_EQ(found, 'x');
  EXPECT_TRUE(memory.holds(HIGH));
  EXPECT_TRUE(memory.holds(HIGH + 2 * PAGE - 1));
  EXPECT_FALSE(memory.holds(HIGH + 2 * PAGE));
  EXPECT_FALSE(memory.holds(HIGH - 1));
  EXPECT_EQ(memory.end(), HIGH + 2 * PAGE);
  EXPECT_EQ(HostMemory(nullptr).end(), 0u);
  close(file);
}

TEST(HostMemory, OfAFileThatCannotBeMappedIsRefused) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  auto regions = kj::heapArray<HostRegion>(1);
  regions[0] = HostRegion{HIGH, PAGE, 0, ends[0]};
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { HostMemory(kj::mv(regions)); })) {
    EXPECT_TRUE(exception->getDescription().startsWith("TRP-host-103: "));
  } else {
    ADD_FAILURE();
  }
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace troupe::broker
