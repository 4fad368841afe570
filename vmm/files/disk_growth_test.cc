#include "vmm/files/disk_growth.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace troupe {
namespace {

constexpr uint64_t MIB = 1 << 20;

// A disk in a file of 1 MiB.
struct Bench {
  Bench() : plan{kj::str("/disk"), kj::str("root"), kj::str("root"), false, false, 1, {}} {
    file = kj::AutoCloseFd(memfd_create("disk", MFD_CLOEXEC));
    KJ_SYSCALL(ftruncate(file, MIB));
  }
  uint64_t size() {
    struct stat info;
    KJ_SYSCALL(fstat(file, &info));
    return info.st_size;
  }
  // The code and the text of what growing throws.
  std::string refusal(uint64_t bytes) {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { growDiskFile(plan, file, bytes); })) {
      return exception->getDescription().cStr();
    }
    return "";
  }
  DiskPlan plan;
  kj::AutoCloseFd file;
};

TEST(DiskGrowth, ARawFileGrows) {
  Bench bench;
  EXPECT_EQ(growDiskFile(bench.plan, bench.file, 5 * MIB), 5 * MIB);
  EXPECT_EQ(bench.size(), 5 * MIB);
  EXPECT_EQ(growDiskFile(bench.plan, bench.file, 5 * MIB), 5 * MIB);
}

TEST(DiskGrowth, AnImageIsItsActorsToGrow) {
  Bench bench;
  bench.plan.format = DiskFormat::QCOW2;
  EXPECT_EQ(growDiskFile(bench.plan, bench.file, 5 * MIB), 5 * MIB);
  EXPECT_EQ(bench.size(), MIB);
}

TEST(DiskGrowth, WhatCannotBeIsRefusedAndChangesNothing) {
  Bench bench;
  EXPECT_EQ(bench.refusal(MIB - 512).find("TRP-cfg-037"), 0u);
  EXPECT_EQ(bench.refusal(2 * MIB + 1).find("TRP-cfg-037"), 0u);
  EXPECT_EQ(bench.refusal(1ull << 63).find("TRP-cfg-037"), 0u);
  EXPECT_EQ(bench.refusal(0).find("TRP-cfg-037"), 0u) << "a file does not know";
  bench.plan.readOnly = true;
  EXPECT_EQ(bench.refusal(2 * MIB), "TRP-cfg-037: disk \"root\" is read-only; it keeps its size");
  bench.plan.isVolatile = true;
  EXPECT_EQ(bench.refusal(2 * MIB), "TRP-cfg-037: disk \"root\" is volatile; it keeps its size");
  EXPECT_EQ(bench.size(), MIB);
}

TEST(DiskGrowth, AFileThatTheHostDoesNotLetGrowIsSaidToBeSo) {
  Bench bench;
  struct rlimit before;
  KJ_SYSCALL(getrlimit(RLIMIT_FSIZE, &before));
  struct rlimit low = {4 * MIB, before.rlim_max};
  auto handler = signal(SIGXFSZ, SIG_IGN);
  KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &low));
  auto text = bench.refusal(5 * MIB);
  KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &before));
  signal(SIGXFSZ, handler);
  EXPECT_EQ(text.find("TRP-host-011"), 0u) << text;
  EXPECT_EQ(bench.size(), MIB);
}

}  // namespace
}  // namespace troupe
