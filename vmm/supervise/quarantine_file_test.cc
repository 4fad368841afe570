// What is told and kept of requests that a device's memory shows, whatever stands there.
#include "vmm/supervise/quarantine_file.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "vmm/files/run_folder.h"

namespace troupe {
namespace {

using virtio::Quarantine;
using virtio::QuarantinedRequest;

struct Bench {
  ~Bench() { unlink(path.c_str()); }

  void keep(uint64_t sequence, std::string bytes = "four") {
    iovec piece{bytes.data(), bytes.size()};
    device.keep({sequence, bytes.size(), 1, 0, 2, 3}, kj::arrayPtr(&piece, 1));
  }
  std::string told() {
    KJ_IF_MAYBE (text, file.writeNew()) return text->cStr();
    return "";
  }
  std::string kept() {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  uint64_t& count() { return words[0]; }

  std::string vm = "quarantine-test-" + std::to_string(getpid());
  std::string path = std::string(runFolder().cStr()) + "/" + vm + ".blk0.quarantine";
  uint64_t words[8192] = {};
  Quarantine device{kj::arrayPtr(words, 8192).asBytes()};
  Quarantine seen{kj::arrayPtr(words, 8192).asBytes()};
  QuarantineFile file{vm.c_str(), "blk0", seen};
};

TEST(QuarantineFile, HasEachRequestOnceAndForItsUserAlone) {
  Bench bench;
  EXPECT_EQ(bench.told(), "");
  EXPECT_NE(access(bench.path.c_str(), F_OK), 0);
  bench.keep(7);
  EXPECT_NE(bench.told().find("died of a request"), std::string::npos);
  EXPECT_EQ(bench.told(), "");
  EXPECT_EQ(bench.kept(),
            "request 7 of queue 2, head 3: 4 bytes to read, 1 to write; the first 4:\n666f7572\n");
  struct stat info;
  ASSERT_EQ(stat(bench.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  bench.keep(8);
  bench.keep(9);
  EXPECT_NE(bench.told().find("each of 2 requests"), std::string::npos);
}

TEST(QuarantineFile, WaitsForTheLastOneThatIsNotComplete) {
  Bench bench;
  bench.keep(1);
  EXPECT_NE(bench.told(), "");
  bench.count()++;  // begun, and nothing more
  EXPECT_EQ(bench.told(), "");
  bench.count()--;
  bench.keep(2);
  EXPECT_NE(bench.told(), "");
  EXPECT_NE(bench.kept().find("request 2 "), std::string::npos);
}

TEST(QuarantineFile, ACountWithoutRequestsSaysNothing) {
  Bench bench;
  for (uint64_t count : {uint64_t(1), uint64_t(1000), UINT64_MAX, uint64_t(3)}) {
    bench.count() = count;
    EXPECT_EQ(bench.told(), "") << count;
  }
  EXPECT_NE(access(bench.path.c_str(), F_OK), 0);
}

TEST(QuarantineFile, EndsOnceWhenItIsAsLargeAsItMayBecome) {
  Bench bench;
  std::string bytes(QuarantinedRequest::MOST_BYTES, 'x');
  int tellings = 0;
  for (uint64_t i = 0; i < 1000; i++) {
    bench.keep(i, bytes);
    tellings += bench.told() != "";
  }
  struct stat info;
  ASSERT_EQ(stat(bench.path.c_str(), &info), 0);
  EXPECT_LE(info.st_size, 1 << 20);
  EXPECT_GT(info.st_size, 1 << 19);
  EXPECT_LT(tellings, 200);
}

TEST(QuarantineFile, ThatItCannotBeWrittenIsToldOnce) {
  Bench bench;
  ASSERT_EQ(mkdir(bench.path.c_str(), 0700), 0);
  bench.keep(1);
  EXPECT_NE(bench.told().find("cannot be written"), std::string::npos);
  bench.keep(2);
  EXPECT_EQ(bench.told(), "");
  rmdir(bench.path.c_str());
}

}  // namespace
}  // namespace troupe
