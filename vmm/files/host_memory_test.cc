// What --permit-host-memory and --host-memory say, and the files they name.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "vmm/files/host_memory_file.h"

namespace troupe {
namespace {

using Kind = HostMemoryWords::Kind;
constexpr uint64_t HIGH = 0x100000000;
constexpr uint64_t PAGE = 4096;

template <typename Action>
std::string refusalOf(Action&& action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(action)) {
    return exception->getDescription().cStr();
  }
  return "";
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

HostMemoryWords parse(kj::StringPtr text) {
  return parseHostMemory("--host-memory", text);
}

TEST(HostMemoryWords, ArePathAndPlace) {
  auto words = parse("/dev/shm/a,at=0x100000000");
  EXPECT_STREQ(words.path.cStr(), "/dev/shm/a");
  EXPECT_EQ(words.at, HIGH);
  EXPECT_EQ(words.size, 0u);
  EXPECT_EQ(words.offset, 0u);
  EXPECT_EQ(words.kind, Kind::CACHED);
  EXPECT_FALSE(words.isShared);

  auto all = parse("/a,,b,device,shared,size=16M,offset=0x2000,at=8G");
  EXPECT_STREQ(all.path.cStr(), "/a,b");
  EXPECT_EQ(all.at, 2 * HIGH);
  EXPECT_EQ(all.size, 16u << 20);
  EXPECT_EQ(all.offset, 0x2000u);
  EXPECT_EQ(all.kind, Kind::DEVICE);
  EXPECT_TRUE(all.isShared);
}

TEST(HostMemoryWords, OfAnotherFormAreRefused) {
  for (auto text :
       {"", ",at=0x100000000", "/a", "/a,at=", "/a,at=x", "/a,at=0x", "/a,at=0xg",
        "/a,at=0x100000000,size=0", "/a,at=0x100000000,size=4097", "/a,at=0x100000001",
        "/a,at=0x100000000,offset=7", "/a,at=0x100000000,offset=0x7ffffffffffff000",
        "/a,at=0x100000000,devise", "/a,at=0x100000000,device=1", "/a,at=0x11112222333344445",
        // Where no memory of guests can be.
        "/a,at=0xc0000000", "/a,at=0xbffff000,size=2M", "/a,at=0xfffff000",
        "/a,at=0x40000000,size=8G", "/a,at=0xc00000000", "/a,at=0xbfffff000,size=2M",
        "/a,at=0x100000000,size=0x8000000000000000"}) {
    auto refused = refusalOf([&] { parse(text); });
    EXPECT_EQ(refused.find("TRP-rlm-060: "), 0u) << text << ": " << refused;
  }
  EXPECT_TRUE(has(refusalOf([] { parse("/a,at=4G,at=8G"); }), "given twice"));
  EXPECT_EQ(refusalOf([] { parse("/a,at=0xbffff000,size=4096"); }), "");
  EXPECT_EQ(refusalOf([] { parse("/a,at=0xbfffff000,size=4096"); }), "");
}

TEST(PermittedPart, IsAllOfARegionOrAPieceOfIt) {
  HostMemoryWords permitted[] = {parse("/a,at=0x100000000,size=64K,offset=4096,shared"),
                                 parse("/b,at=0x100010000,size=64K,device")};
  auto all = permittedPart(permitted, HIGH, 0x10000, Kind::CACHED);
  EXPECT_STREQ(all.path.cStr(), "/a");
  EXPECT_EQ(all.offset, PAGE);
  auto piece = permittedPart(permitted, HIGH + 2 * PAGE, PAGE, Kind::CACHED);
  EXPECT_EQ(piece.at, HIGH + 2 * PAGE);
  EXPECT_EQ(piece.size, PAGE);
  EXPECT_EQ(piece.offset, 3 * PAGE);
  EXPECT_TRUE(piece.isShared);
  auto device = permittedPart(permitted, HIGH + 0x1f000, PAGE, Kind::DEVICE);
  EXPECT_STREQ(device.path.cStr(), "/b");
}

TEST(PermittedPart, IsNeitherMoreNorOfAnotherKind) {
  HostMemoryWords permitted[] = {parse("/a,at=0x100000000,size=64K"),
                                 parse("/b,at=0x100010000,size=64K,device")};
  auto refused = [&](uint64_t address, uint64_t size, Kind kind) {
    return refusalOf([&] { permittedPart(permitted, address, size, kind); });
  };
  for (auto& text :
       {refused(HIGH - PAGE, PAGE, Kind::CACHED), refused(HIGH - PAGE, 2 * PAGE, Kind::CACHED),
        refused(HIGH + 0xf000, 2 * PAGE, Kind::CACHED), refused(HIGH, 0x20000, Kind::CACHED),
        refused(HIGH, PAGE, Kind::DEVICE), refused(HIGH + 0x10000, PAGE, Kind::CACHED),
        refused(HIGH + 0x20000, PAGE, Kind::DEVICE), refused(HIGH, ~(PAGE - 1), Kind::CACHED),
        refused(0, PAGE, Kind::CACHED)}) {
    EXPECT_EQ(text.find("TRP-rlm-062: "), 0u) << text;
    EXPECT_TRUE(has(text, "0x100000000+0x10000 (cached memory)")) << text;
    EXPECT_TRUE(has(text, "0x100010000+0x10000 (device memory)")) << text;
  }
  auto nobody = refusalOf([&] { permittedPart(nullptr, HIGH, PAGE, Kind::CACHED); });
  EXPECT_TRUE(has(nobody, "TRP-rlm-062: ") && has(nobody, "nobody permitted any")) << nobody;
}

// A file of five pages in memory.
class Bench {
 public:
  Bench() {
    char name[] = "/dev/shm/troupe-host-memory-XXXXXX";
    fd = mkstemp(name);
    KJ_ASSERT(fd >= 0);
    path = name;
    KJ_SYSCALL(ftruncate(fd, 5 * PAGE));
  }
  ~Bench() {
    close(fd);
    unlink(path.c_str());
  }

  HostMemoryWords words(const std::string& more = "") const {
    return parse(kj::str(path.c_str(), ",at=0x100000000", more.c_str()));
  }
  HostMemoryFile open(const std::string& more = "") const {
    auto said = words(more);
    auto file = openHostMemory(said);
    kj::TimerImpl timer(kj::origin<kj::TimePoint>());
    // Without patience it is taken now or not at all.
    auto taken = lockHostMemory(timer, said, file, 0 * kj::SECONDS);
    return file;
  }
  std::string refusal(const std::string& more = "") const {
    return refusalOf([&] { open(more); });
  }

  std::string path;
  int fd;
};

TEST(HostMemoryFile, IsAllThatTheFileHasUnlessMoreIsSaid) {
  Bench bench;
  EXPECT_EQ(bench.open().size, 5 * PAGE);
  EXPECT_EQ(bench.open(",offset=8192,size=4096").offset, 2 * PAGE);
  EXPECT_EQ(bench.open(",offset=8192,size=4096").size, PAGE);
  KJ_SYSCALL(ftruncate(bench.fd, 5 * PAGE + 100));
  EXPECT_EQ(bench.open(",offset=4096").size, 4 * PAGE);
  EXPECT_EQ(fcntl(bench.open().fd, F_GETFD), FD_CLOEXEC);
}

TEST(HostMemoryFile, ThatIsTooShortIsRefused) {
  Bench bench;
  for (auto more : {",size=24K", ",offset=20480", ",offset=16384,size=8K", ",offset=1G"}) {
    auto text = bench.refusal(more);
    EXPECT_TRUE(has(text, "TRP-rlm-061: ") && has(text, "it has 20480 bytes")) << text;
  }
  KJ_SYSCALL(ftruncate(bench.fd, 100));
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-061: "));
  KJ_SYSCALL(ftruncate(bench.fd, 0));
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-061: "));
}

TEST(HostMemoryFile, WhoseSizeMakesItReachWhereNoMemoryIsIsRefused) {
  Bench bench;
  auto text =
      refusalOf([&] { openHostMemory(parse(kj::str(bench.path.c_str(), ",at=0xbfffc000"))); });
  EXPECT_TRUE(has(text, "TRP-rlm-060: ") && has(text, "addresses of devices")) << text;
}

TEST(HostMemoryFile, OfTheHostsThatIsNoDevicesIsNoDeviceMemory) {
  Bench bench;
  auto text = bench.refusal(",device");
  EXPECT_TRUE(has(text, "TRP-rlm-061: ") && has(text, "would be cached")) << text;
}

TEST(HostMemoryFile, OfAKindThatIsNoMemoryIsRefused) {
  auto refusal = [](const char* text) { return refusalOf([&] { openHostMemory(parse(text)); }); };
  // A mapping of this one is memory of nobody's.
  auto zero = refusal("/dev/zero,at=0x100000000,size=4096");
  EXPECT_TRUE(has(zero, "TRP-rlm-061: ") && has(zero, "not this file's own memory")) << zero;
  auto unsized = refusal("/dev/zero,at=0x100000000");
  EXPECT_TRUE(has(unsized, "TRP-rlm-061: ") && has(unsized, "size=SIZE")) << unsized;
  auto null = refusal("/dev/null,at=0x100000000,size=4096");
  EXPECT_TRUE(has(null, "TRP-rlm-061: ") && has(null, "does not map")) << null;
  for (auto device :
       {"/dev/zero,at=0x100000000,size=4096,device", "/dev/null,at=0x100000000,size=4096,device"}) {
    EXPECT_TRUE(has(refusal(device), "TRP-rlm-061: ")) << refusal(device);
  }
  EXPECT_TRUE(has(refusal("/dev/shm,at=0x100000000"), "TRP-cfg-019: ")) << "a directory";
  EXPECT_TRUE(has(refusal("/dev/shm/there-is-none,at=0x100000000"), "TRP-cfg-018: "));
}

TEST(HostMemoryFile, BelongsToOneGuestUnlessItIsShared) {
  Bench bench;
  kj::Maybe<HostMemoryFile> first = bench.open();
  auto text = bench.refusal();
  EXPECT_TRUE(has(text, "TRP-rlm-063: ") && has(text, "`shared`")) << text;
  EXPECT_TRUE(has(bench.refusal(",shared"), "TRP-rlm-063: "));
  first = nullptr;
  kj::Maybe<HostMemoryFile> sharing = bench.open(",shared");
  EXPECT_EQ(bench.refusal(",shared"), "");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-063: "));
}

TEST(HostMemoryFile, IsTakenWithoutSleepWhenItsOwnerLeaves) {
  Bench bench;
  kj::EventLoop loop;
  kj::WaitScope scope(loop);
  kj::TimerImpl timer(kj::origin<kj::TimePoint>() + 1 * kj::HOURS);
  kj::Maybe<HostMemoryFile> first = bench.open();
  auto words = bench.words();
  auto second = openHostMemory(words);
  auto elapse = [&](kj::Duration time) {
    timer.advanceTo(timer.now() + time);
    scope.poll();
  };
  std::string refused;
  auto take = [&]() {
    return lockHostMemory(timer, words, second).eagerlyEvaluate([&](kj::Exception&& failure) {
      refused = failure.getDescription().cStr();
    });
  };
  auto taking = take();
  for (auto waited = 0 * kj::SECONDS; waited < LOCK_PATIENCE; waited += 5 * kj::MILLISECONDS) {
    EXPECT_EQ(refused, "");
    elapse(5 * kj::MILLISECONDS);
  }
  EXPECT_TRUE(has(refused, "TRP-rlm-063: ")) << refused;

  taking = take();
  elapse(5 * kj::MILLISECONDS);
  first = nullptr;
  elapse(5 * kj::MILLISECONDS);
  ASSERT_TRUE(taking.poll(scope));
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-063: "));
}

TEST(HostMemoryFile, OtherPartsOfItBelongToOthers) {
  Bench bench;
  auto first = bench.open(",size=8192");
  EXPECT_EQ(bench.refusal(",offset=8192"), "");
  EXPECT_TRUE(has(bench.refusal(",offset=4096,size=8192"), "TRP-rlm-063: "));
}

TEST(Permits, EachAddressLeadsToOnePlace) {
  Bench bench;
  kj::Vector<HostMemoryWords> all;
  auto add = [&](const char* more) {
    return refusalOf([&] { addPermitted(all, kj::str(bench.path.c_str(), more)); });
  };
  EXPECT_EQ(add(",at=0x100000000"), "");
  EXPECT_EQ(all[0].size, 5 * PAGE);
  EXPECT_EQ(add(",at=0x100005000"), "");
  for (auto more : {",at=0x100004000", ",at=0x100000000,size=4096", ",at=0xfffff000,size=8192"}) {
    auto text = add(more);
    EXPECT_TRUE(has(text, "TRP-rlm-060: ")) << text;
  }
  EXPECT_EQ(all.size(), 2u);
}

TEST(Permits, AreCounted) {
  Bench bench;
  kj::Vector<HostMemoryWords> all;
  auto add = [&](size_t i) {
    return refusalOf([&] {
      addPermitted(all, kj::str(bench.path.c_str(), ",size=4096,at=0x", kj::hex(HIGH + i * PAGE)));
    });
  };
  for (size_t i = 0; i < MOST_PERMITTED; i++)
    EXPECT_EQ(add(i), "");
  EXPECT_TRUE(has(add(MOST_PERMITTED), "TRP-rlm-060: "));
}

}  // namespace
}  // namespace troupe
