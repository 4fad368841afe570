#include "vmm/files/open_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/files/temporary_folder.h"

namespace troupe {
namespace {

template <typename Action>
std::string codeOf(Action&& action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { action(); })) {
    return std::string(exception->getDescription().cStr()).substr(0, 11);
  }
  return "";
}

class Folder: public testing::TemporaryFolder {
 public:
  kj::String file(kj::StringPtr name, off_t size) {
    auto full = kj::str(path.c_str(), "/", name);
    kj::AutoCloseFd fd(open(full.cStr(), O_CREAT | O_WRONLY, 0600));
    EXPECT_EQ(ftruncate(fd, size), 0);
    return full;
  }
};

DiskPlan disk(kj::StringPtr path, bool readOnly) {
  return {kj::heapString(path), kj::str("disk"), kj::str("disk"), readOnly, false, 1, {}};
}

constexpr uint64_t RAM = 64 << 20;

TEST(OpenImage, RefusesWhatIsNoImageByItsKind) {
  Folder folder;
  EXPECT_EQ(codeOf([&]() { openImage("kernel", "/nonexistent", RAM); }), "TRP-cfg-018");
  EXPECT_EQ(codeOf([&]() { openImage("kernel", "/", RAM); }), "TRP-cfg-019");
  EXPECT_EQ(codeOf([&]() { openImage("kernel", "/dev/null", RAM); }), "TRP-cfg-019");
  EXPECT_EQ(codeOf([&]() { openImage("kernel", folder.file("empty", 0), RAM); }), "TRP-cfg-020");
  EXPECT_EQ(codeOf([&]() { openImage("kernel", folder.file("big", RAM + 1), RAM); }),
            "TRP-cfg-021");
  EXPECT_EQ(codeOf([&]() { openImage("kernel", folder.file("good", RAM), RAM); }), "");
}

TEST(OpenImage, BRK09_DoesNotWaitForANamedPipe) {
  Folder folder;
  auto path = kj::str(folder.path.c_str(), "/pipe");
  ASSERT_EQ(mkfifo(path.cStr(), 0600), 0);
  EXPECT_EQ(codeOf([&]() { openImage("kernel", path, RAM); }), "TRP-cfg-019");
}

TEST(OpenDisk, RefusesSizesThatAreNoSectors) {
  Folder folder;
  EXPECT_EQ(codeOf([&]() { openDisk(disk(folder.file("empty", 0), false)); }), "TRP-cfg-022");
  EXPECT_EQ(codeOf([&]() { openDisk(disk(folder.file("odd", 1000), true)); }), "TRP-cfg-022");
  EXPECT_EQ(codeOf([&]() { openDisk(disk("/", false)); }), "TRP-cfg-019");
  EXPECT_EQ(codeOf([&]() { openDisk(disk("/dev/null", true)); }), "TRP-cfg-019");
  EXPECT_EQ(openDisk(disk(folder.file("good", 1024), false)).size, 1024);
}

TEST(OpenDisk, AWriterHasItsDiskAlone) {
  Folder folder;
  auto path = folder.file("d", 512);
  auto writer = openDisk(disk(path, false));
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, false)); }), "TRP-cfg-024");
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, true)); }), "TRP-cfg-024");
}

TEST(OpenDisk, ReadersShareADisk) {
  Folder folder;
  auto path = folder.file("d", 512);
  auto first = openDisk(disk(path, true));
  auto second = openDisk(disk(path, true));
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, false)); }), "TRP-cfg-024");
}

TEST(OpenDisk, AVolatileDiskIsReadAndComesWithItsMemory) {
  Folder folder;
  auto path = folder.file("d", 1024);
  auto plan = disk(path, true);
  plan.isVolatile = true;
  auto first = openDisk(plan);
  EXPECT_EQ(fcntl(first.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
  auto& overlay = KJ_ASSERT_NONNULL(first.overlay);
  struct stat info;
  ASSERT_EQ(fstat(overlay.memory, &info), 0);
  EXPECT_EQ(info.st_size, 4096) << "whole pages";
  EXPECT_EQ(overlay.mostBytes, 4096u);
  EXPECT_EQ(fcntl(overlay.memory, F_GET_SEALS) & (F_SEAL_GROW | F_SEAL_SEAL),
            F_SEAL_GROW | F_SEAL_SEAL);
  auto second = openDisk(plan);
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, false)); }), "TRP-cfg-024");
  plan.format = DiskFormat::QCOW2;
  auto image = openDisk(plan);
  ASSERT_EQ(fstat(KJ_ASSERT_NONNULL(image.overlay).memory, &info), 0);
  EXPECT_EQ(info.st_size, 64ll << 40);
  EXPECT_EQ(info.st_blocks, 0);
  EXPECT_TRUE(openDisk(disk(path, true)).overlay == nullptr);
}

TEST(OpenDisk, ALockEndsWithTheLastCopyOfItsFd) {
  Folder folder;
  auto path = folder.file("d", 512);
  auto copy = kj::AutoCloseFd(dup(openDisk(disk(path, false)).fd));
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, false)); }), "TRP-cfg-024");
  copy = nullptr;
  EXPECT_EQ(codeOf([&]() { openDisk(disk(path, false)); }), "");
}

TEST(OpenDisks, BRK09_OneFileAsTwoDisksIsRefusedUnlessBothOnlyRead) {
  Folder folder;
  auto path = folder.file("d", 512);
  auto link = kj::str(folder.path.c_str(), "/hard");
  ASSERT_EQ(::link(path.cStr(), link.cStr()), 0);
  auto open = [&](bool firstReads, bool secondReads) {
    return codeOf([&]() {
      auto plans = kj::arr(disk(path, firstReads), disk(link, secondReads));
      openDisks(plans);
    });
  };
  EXPECT_EQ(open(false, false), "TRP-cfg-023");
  EXPECT_EQ(open(true, false), "TRP-cfg-023");
  EXPECT_EQ(open(true, true), "");
}

TEST(CheckHostMemory, RefusesMoreThanTheHostHas) {
  EXPECT_EQ(codeOf([]() { checkHostMemory(1ull << 60); }), "TRP-cfg-030");
  EXPECT_EQ(codeOf([]() { checkHostMemory(2 << 20); }), "");
}

DiskPlan image(kj::StringPtr path, kj::StringPtr backing, bool readOnly = false) {
  auto plan = disk(path, readOnly);
  plan.format = DiskFormat::QCOW2;
  kj::Vector<BackingPlan> below;
  if (backing.size() > 0) below.add(BackingPlan{kj::heapString(backing), DiskFormat::RAW});
  plan.backing = below.releaseAsArray();
  return plan;
}

std::string opening(DiskPlan one, kj::Maybe<DiskPlan> other = nullptr) {
  kj::Vector<DiskPlan> plans;
  plans.add(kj::mv(one));
  KJ_IF_MAYBE (second, other) plans.add(kj::mv(*second));
  return codeOf([&]() { openDisks(plans); });
}

TEST(OpenDisk, AnImageMayHaveAnyLength) {
  Folder folder;
  EXPECT_EQ(opening(image(folder.file("odd", 1000), "")), "");
}

TEST(OpenDisk, BackingFilesAreOpenedForReadingAndLocked) {
  Folder folder;
  auto top = folder.file("top", 512);
  auto below = folder.file("below", 512);
  auto opened = openDisk(image(top, below));
  ASSERT_EQ(opened.backing.size(), 1u);
  EXPECT_EQ(fcntl(opened.backing[0], F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(codeOf([&]() { openDisk(disk(below, false)); }), "TRP-cfg-024");
  EXPECT_EQ(codeOf([&]() { openDisk(disk(below, true)); }), "");
}

TEST(OpenDisk, ABackingFileThatIsWrittenOrMissingOrNoneIsRefused) {
  Folder folder;
  auto top = folder.file("top", 512);
  auto below = folder.file("below", 512);
  auto writer = openDisk(disk(below, false));
  EXPECT_EQ(opening(image(top, below)), "TRP-cfg-024");
  EXPECT_EQ(opening(image(top, kj::str(below, "x"))), "TRP-cfg-018");
  EXPECT_EQ(opening(image(top, "/")), "TRP-cfg-019");
}

TEST(OpenDisk, ChainsThatLoopAndFilesThatAreTwoThingsAreRefused) {
  Folder folder;
  auto top = folder.file("top", 512);
  auto other = folder.file("other", 512);
  auto below = folder.file("below", 512);
  EXPECT_EQ(opening(image(top, top)), "TRP-cfg-035");
  EXPECT_EQ(opening(image(top, top, true)), "TRP-cfg-035");
  EXPECT_EQ(opening(image(top, below), image(other, below)), "");
  EXPECT_EQ(opening(image(top, below), disk(below, false)), "TRP-cfg-023");
}

}  // namespace
}  // namespace troupe
