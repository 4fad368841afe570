// What a device process in its jail has of guest RAM: none, all of it to read, ranges, all. Looked
// at from outside, in /proc, and tried from inside.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "devices/virtio/testing/memory_sample.h"
#include "devices/virtio/testing/process_bench.h"
#include "devices/virtio/testing/sample_all_profile.h"
#include "devices/virtio/testing/sample_none_profile.h"
#include "devices/virtio/testing/sample_ranges_profile.h"
#include "devices/virtio/testing/sample_read_only_profile.h"

namespace troupe::virtio {
namespace {

using sandbox::FileRange;
using sandbox::ProfileMemory;
using testing::Attempt;
using testing::Command;
using testing::FakeRam;
using testing::makeHandle;
using testing::ProcessBench;

constexpr uint64_t MIB = 1 << 20;
constexpr uint64_t HIGH = uint64_t(4) << 30;
constexpr int RAM_FD = 16;

// What /proc/PID/maps has of the RAM: "rw-s 0x200000+0x2000" for each line.
using Maps = std::vector<std::string>;

struct Bench {
  explicit Bench(const sandbox::Profile& profile)
      : profile(profile),
        device(ram, profile, "sample", /*queueCount=*/1, nullptr, nullptr,
               "devices/virtio/testing/memory_sample") {}

  // Hands over what a broker would under the profile, and lets the driver begin.
  void start() { start(attachRequest()); }
  void start(capnp::Request<Device::AttachParams, Device::AttachResults> request) {
    device.await(request.send().ignoreResult());
    device.describe();  // behind it the fds that came with attach() are closed
  }
  void activate() { device.activate(F_VERSION_1, {nullptr}); }

  capnp::Request<Device::AttachParams, Device::AttachResults> attachRequest() {
    auto request = device.attachRequest();
    auto memory = request.getMemory();
    const ProfileMemory& granted = profile.layers.memory;
    switch (granted.access) {
      case ProfileMemory::NONE:
        request.initMemory();
        break;
      case ProfileMemory::READ_ONLY:
        memory.setFile(makeHandle(ram.readOnlyFd()));
        memory.setReadOnly(true);
        break;
      case ProfileMemory::RANGES:
        describeRanges(memory);
        break;
      case ProfileMemory::ALL:
        break;
    }
    return request;
  }

  // Of the profile's ranges, as the broker cuts them out of RAM.
  void describeRanges(GuestRam::Builder memory) {
    auto ranges = fileRanges();
    auto list = memory.initRegions(ranges.size());
    for (size_t i = 0; i < ranges.size(); i++) {
      list[i].setGuestAddress(profile.layers.memory.ranges[i].address);
      list[i].setFileOffset(ranges[i].offset);
      list[i].setSize(ranges[i].size);
    }
  }
  std::vector<FileRange> fileRanges() {
    std::vector<FileRange> result;
    for (size_t i = 0; i < profile.layers.memory.rangeCount; i++) {
      auto& range = profile.layers.memory.ranges[i];
      uint64_t offset = range.address < HIGH ? range.address : range.address - HIGH + 4 * MIB;
      result.push_back({offset, range.size});
    }
    return result;
  }

  struct stat ramFile() {
    struct stat info;
    KJ_SYSCALL(fstat(ram.fd(), &info));
    return info;
  }

  // What troupe would find; empty when all is as the profile says.
  std::string differences(sandbox::Stage stage) {
    auto ranges = fileRanges();
    auto info = ramFile();
    sandbox::SharedFile memory = {info.st_dev, info.st_ino,
                                  kj::arrayPtr(ranges.data(), ranges.size())};
    std::string all;
    for (auto& difference : device.attest(stage, memory))
      all += std::string(difference.cStr()) + "\n";
    return all;
  }

  Maps maps() {
    Maps result;
    std::ifstream table(kj::str("/proc/", device.child().pid(), "/maps").cStr());
    std::string line;
    while (std::getline(table, line)) {
      std::istringstream words(line);
      std::string addresses, protection, offset, file;
      uint64_t inode;
      words >> addresses >> protection >> offset >> file >> inode;
      if (inode != ramFile().st_ino) continue;
      uint64_t begin = std::stoull(addresses, nullptr, 16);
      uint64_t end = std::stoull(addresses.substr(addresses.find('-') + 1), nullptr, 16);
      result.push_back(kj::str(protection.c_str(), " 0x", kj::hex(std::stoull(offset, nullptr, 16)),
                               "+0x", kj::hex(end - begin))
                           .cStr());
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  // What came of an attempt; none when the device has died of it.
  kj::Maybe<int64_t> attempt(Attempt what, uint64_t address, uint64_t value = 0) {
    Command command = {what, address, value};
    auto written = kj::runCatchingExceptions(
        [&]() { device.writeConfig(0, kj::arrayPtr(&command, 1).asBytes()); });
    if (written != nullptr) return nullptr;
    device.waitUntil([&]() { return device.host.configChanges.size() > 0; });
    int64_t result;
    KJ_REQUIRE(device.host.configChanges[0].data.size() == sizeof(result));
    memcpy(&result, device.host.configChanges[0].data.begin(), sizeof(result));
    device.host.configChanges.clear();
    return result;
  }

  void expectResult(Attempt what, uint64_t address, int64_t wanted) {
    KJ_IF_MAYBE (result, attempt(what, address)) {
      EXPECT_EQ(wanted, *result);
    } else {
      ADD_FAILURE() << "it died";
    }
  }

  void expectDeath(Attempt what, uint64_t address, int signal) {
    EXPECT_TRUE(attempt(what, address) == nullptr);
    int status = device.waitForExit();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
  }

  kj::byte& at(uint64_t guestAddress) { return ram.bytes(guestAddress, 1)[0]; }

  const sandbox::Profile& profile;
  FakeRam ram{FakeRam::Region{0, 4 * MIB}, FakeRam::Region{HIGH, 2 * MIB}};
  ProcessBench device;
};

// In both stages from outside.
void expectGranted(Bench& bench, const Maps& wanted) {
  bench.start();
  EXPECT_EQ("", bench.differences(sandbox::Stage::READY));
  EXPECT_EQ(wanted, bench.maps());
  bench.activate();
  EXPECT_EQ("", bench.differences(sandbox::Stage::RUN));
  EXPECT_EQ(wanted, bench.maps());
}

// What troupe says when the broker handed over what `granted` gives, and the profile is another.
std::string findingsFor(const sandbox::Profile& profile, void (*spoil)(Bench&, GuestRam::Builder)) {
  Bench bench(profile);
  auto request = bench.attachRequest();
  spoil(bench, request.getMemory());
  bench.start(kj::mv(request));
  return bench.differences(sandbox::Stage::READY);
}

TEST(MemoryAll, IsMappedAndCanBeReadAndWritten) {
  Bench bench(SAMPLE_ALL_PROFILE);
  expectGranted(bench, {"rw-s 0x0+0x400000", "rw-s 0x400000+0x200000"});
  bench.at(0x1234) = 7;
  bench.expectResult(Attempt::LOAD, 0x1234, 7);
  bench.expectResult(Attempt::LOAD, HIGH + 0x1234, FakeRam::POISON);
  bench.expectResult(Attempt::STORE, HIGH + 0x1234, 0);
  EXPECT_EQ(0, bench.at(HIGH + 0x1234));
}

TEST(MemoryAll, NoFileCanBeMappedAnyMore) {
  Bench bench(SAMPLE_ALL_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::MAP_FD, RAM_FD, SIGSYS);
}

TEST(MemoryReadOnly, IsMappedForReadingAlone) {
  Bench bench(SAMPLE_READ_ONLY_PROFILE);
  expectGranted(bench, {"r--s 0x0+0x400000", "r--s 0x400000+0x200000"});
  bench.at(0x1234) = 7;
  bench.expectResult(Attempt::LOAD, 0x1234, 7);
  bench.at(0x1234) = 8;
  bench.expectResult(Attempt::LOAD, 0x1234, 8);
  bench.expectResult(Attempt::LOAD, HIGH + 0x1234, FakeRam::POISON);
}

TEST(MemoryReadOnly, StoreFaults) {
  Bench bench(SAMPLE_READ_ONLY_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::STORE, 0x1234, SIGSEGV);
  EXPECT_EQ(FakeRam::POISON, bench.at(0x1234));
}

// Its filter lets mprotect() through: it is the kernel that knows how the file was opened.
TEST(MemoryReadOnly, CannotBeMadeWritable) {
  Bench bench(SAMPLE_READ_ONLY_PROFILE);
  bench.start();
  bench.activate();
  bench.expectResult(Attempt::MAKE_WRITABLE, 0x1234, -EACCES);
  EXPECT_EQ("", bench.differences(sandbox::Stage::RUN));
  bench.expectDeath(Attempt::STORE, 0x1234, SIGSEGV);
}

TEST(MemoryReadOnly, ABrokerThatSaysWritableIsRefusedByTheFd) {
  Bench bench(SAMPLE_READ_ONLY_PROFILE);
  auto request = bench.attachRequest();
  request.getMemory().setReadOnly(false);
  EXPECT_ANY_THROW(bench.start(kj::mv(request)));
  EXPECT_EQ(Maps(), bench.maps());
}

// The mapping shows no `w`, and could get one.
TEST(MemoryReadOnly, AWritableFdIsSeenFromOutside) {
  auto found = findingsFor(SAMPLE_READ_ONLY_PROFILE, [](Bench& bench, GuestRam::Builder memory) {
    memory.setFile(makeHandle(bench.ram.fd()));
  });
  EXPECT_NE(std::string::npos, found.find("so that it can write them")) << found;
}

TEST(MemoryReadOnly, AWritableMappingIsSeenFromOutside) {
  auto found = findingsFor(SAMPLE_READ_ONLY_PROFILE, [](Bench& bench, GuestRam::Builder memory) {
    memory.setFile(makeHandle(bench.ram.fd()));
    memory.setReadOnly(false);
  });
  EXPECT_NE(std::string::npos, found.find("so that it can write them")) << found;
}

TEST(MemoryRanges, AreMappedAndNothingElseIs) {
  Bench bench(SAMPLE_RANGES_PROFILE);
  expectGranted(bench, {"rw-s 0x200000+0x2000", "rw-s 0x401000+0x1000"});
  bench.expectResult(Attempt::LOAD, 0x200000, FakeRam::POISON);
  bench.expectResult(Attempt::STORE, 0x201fff, 0);
  EXPECT_EQ(0, bench.at(0x201fff));
  bench.expectResult(Attempt::STORE, HIGH + 0x1000, 0);
  EXPECT_EQ(0, bench.at(HIGH + 0x1000));
  for (uint64_t outside :
       {uint64_t(0), uint64_t(0x1fffff), uint64_t(0x202000), HIGH, HIGH + 0xfff, HIGH + 0x2000}) {
    bench.expectResult(Attempt::LOAD, outside, -EFAULT);
  }
}

TEST(MemoryRanges, CannotGrow) {
  Bench bench(SAMPLE_RANGES_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::GROW, 0x200000, SIGSYS);
}

TEST(MemoryRanges, CannotShift) {
  Bench bench(SAMPLE_RANGES_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::SHIFT, 0x200000, SIGSYS);
}

TEST(MemoryRanges, CannotBeMadeAnythingElse) {
  Bench bench(SAMPLE_RANGES_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::MAKE_WRITABLE, 0x200000, SIGSYS);
}

TEST(MemoryRanges, NoFileCanBeMappedAnyMore) {
  Bench bench(SAMPLE_RANGES_PROFILE);
  bench.start();
  bench.activate();
  bench.expectDeath(Attempt::MAP_FD, RAM_FD, SIGSYS);
}

TEST(MemoryRanges, OnePageMoreIsSeenFromOutside) {
  auto found = findingsFor(SAMPLE_RANGES_PROFILE, [](Bench&, GuestRam::Builder memory) {
    memory.getRegions()[0].setSize(0x3000);
  });
  EXPECT_NE(std::string::npos, found.find("12288 bytes of guest memory, from 2097152 on, beyond"))
      << found;
}

TEST(MemoryRanges, AllOfRamIsSeenFromOutside) {
  auto found = findingsFor(SAMPLE_RANGES_PROFILE, [](Bench& bench, GuestRam::Builder memory) {
    bench.ram.describe(memory);
  });
  EXPECT_NE(std::string::npos, found.find("beyond the ranges its profile names")) << found;
}

TEST(MemoryNone, NothingIsMapped) {
  Bench bench(SAMPLE_NONE_PROFILE);
  expectGranted(bench, {});
  bench.expectResult(Attempt::LOAD, 0, -EFAULT);
  bench.expectResult(Attempt::LOAD, HIGH, -EFAULT);
  bench.expectDeath(Attempt::MAP_FD, RAM_FD, SIGSYS);
}

// Its profile has no number for the fd.
TEST(MemoryNone, ABrokerThatHandsOverRamIsRefused) {
  Bench bench(SAMPLE_NONE_PROFILE);
  EXPECT_ANY_THROW(bench.device.attach());
  EXPECT_EQ(Maps(), bench.maps());
}

}  // namespace
}  // namespace troupe::virtio
