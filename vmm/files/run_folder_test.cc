#include "vmm/files/run_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <string>

namespace troupe {
namespace {

// As an ordinary user would: root's folder is fixed.
class RunFolder: public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() == 0) {
      ASSERT_EQ(seteuid(65534), 0);
    }
    char name[] = "/tmp/run_folder_test.XXXXXX";
    base = mkdtemp(name);
    setenv("XDG_RUNTIME_DIR", base.c_str(), 1);
    folder = base + "/troupe";
  }
  void TearDown() override {
    EXPECT_EQ(system(("rm -rf " + base).c_str()), 0);
    if (getuid() == 0) {
      ASSERT_EQ(seteuid(0), 0);
    }
  }

  bool exists(const std::string& file) const {
    return access((folder + "/" + file).c_str(), F_OK) == 0;
  }

  std::string codeOfTaking(kj::StringPtr name) {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { VmPlace place(name); })) {
      return std::string(exception->getDescription().cStr()).substr(0, 12);
    }
    return "";
  }

  std::string base;
  std::string folder;
};

TEST_F(RunFolder, IsMadePrivate) {
  EXPECT_STREQ(runFolder().cStr(), folder.c_str());
  struct stat info;
  ASSERT_EQ(stat(folder.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700);
}

TEST_F(RunFolder, IsRefusedWhenOpenToOthers) {
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  EXPECT_EQ(codeOfTaking("a"), "TRP-host-005");
}

TEST_F(RunFolder, BRK09_IsRefusedWhenItIsALink) {
  ASSERT_EQ(symlink("/tmp", folder.c_str()), 0);
  EXPECT_EQ(codeOfTaking("a"), "TRP-host-005");
}

TEST_F(RunFolder, BRK09_ALockThatIsALinkIsNotFollowed) {
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  std::string target = base + "/elsewhere";
  ASSERT_EQ(symlink(target.c_str(), (folder + "/a.lock").c_str()), 0);
  EXPECT_EQ(codeOfTaking("a"), "TRP-host-004");
  EXPECT_NE(access(target.c_str(), F_OK), 0);
}

TEST_F(RunFolder, APlaceHasAPrivateSocketAndLeavesNothing) {
  {
    VmPlace place("a");
    struct stat info;
    ASSERT_EQ(stat((folder + "/a.sock").c_str(), &info), 0);
    EXPECT_TRUE(S_ISSOCK(info.st_mode));
    EXPECT_EQ(info.st_mode & 0777, 0600);
    EXPECT_TRUE(exists("a.lock"));
  }
  EXPECT_FALSE(exists("a.sock"));
  EXPECT_FALSE(exists("a.lock"));
}

TEST_F(RunFolder, ANameBelongsToOneVm) {
  VmPlace place("a");
  EXPECT_EQ(codeOfTaking("a"), "TRP-cfg-027:");
  EXPECT_EQ(codeOfTaking("b"), "");
  EXPECT_TRUE(exists("a.sock"));
}

TEST_F(RunFolder, GeneratedNamesDiffer) {
  VmPlace first("");
  VmPlace second("");
  EXPECT_TRUE(first.name() != second.name());
}

TEST_F(RunFolder, WhatAKilledVmLeftIsReplaced) {
  pid_t child = fork();
  if (child == 0) {
    VmPlace place("a");
    raise(SIGKILL);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  ASSERT_TRUE(exists("a.sock"));
  VmPlace place("a");
  auto names = livingVms();
  ASSERT_EQ(names.size(), 1);
  EXPECT_STREQ(names[0].cStr(), "a");
}

TEST_F(RunFolder, ListingRemovesWhatKilledVmsLeft) {
  pid_t child = fork();
  if (child == 0) {
    VmPlace place("dead");
    raise(SIGKILL);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  VmPlace place("alive");
  auto names = livingVms();
  ASSERT_EQ(names.size(), 1);
  EXPECT_FALSE(exists("dead.sock"));
  EXPECT_FALSE(exists("dead.lock"));
  EXPECT_TRUE(exists("alive.sock"));
}

TEST_F(RunFolder, WhatIsRemovedIsCalledWhatItIs) {
  runFolder();
  const std::map<std::string, std::string> KINDS = {
      {"dead.lock", "lock"},
      {"dead.sock", "socket"},
      {"dead.serial", "socket"},
      {"dead.console", "socket"},
      {"dead.blk0.quarantine", "quarantine"},
      {"cid-77", "lease of a cid"},
      {"mac-br0-02:00:00:00:00:01", "lease of a MAC address"}};
  for (auto& one : KINDS) {
    int fd = open((folder + "/" + one.first).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ASSERT_EQ(close(fd), 0);
  }
  std::map<std::string, std::string> removed;
  for (auto& path : removeDead(Leftovers::ALL_OF_THEM))
    removed[path.cStr() + folder.size() + 1] = leftoverKind(path).cStr();
  EXPECT_EQ(removed, KINDS);
}

}  // namespace
}  // namespace troupe
