#include "vmm/files/new_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/files/temporary_folder.h"

namespace troupe {
namespace {

using Existing = NewFile::Existing;

class NewFileTest: public ::testing::Test {
 protected:
  std::string path(const char* name) const { return folder.at(name); }
  size_t entries() const {
    size_t count = 0;
    DIR* listing = opendir(folder.path.c_str());
    while (readdir(listing) != nullptr)
      count++;
    closedir(listing);
    return count - 2;
  }
  void write(const char* name, const std::string& text) {
    int fd = open(path(name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::write(fd, text.data(), text.size()), ssize_t(text.size()));
    close(fd);
  }
  off_t sizeOf(const char* name) const {
    struct stat info;
    return stat(path(name).c_str(), &info) == 0 ? info.st_size : -1;
  }
  std::string codeOf(const char* name, Existing existing) {
    auto error = kj::runCatchingExceptions([&] { NewFile file(path(name).c_str(), existing); });
    KJ_IF_MAYBE (thrown, error) {
      return std::string(thrown->getDescription().cStr()).substr(0, 12);
    }
    return "";
  }

  testing::TemporaryFolder folder;
};

TEST_F(NewFileTest, IsThereOnlyWhenPublished) {
  {
    NewFile file(path("a").c_str(), Existing::REFUSE);
    ASSERT_EQ(ftruncate(file.fd(), 1000), 0);
    EXPECT_EQ(sizeOf("a"), -1);
    file.publish();
  }
  EXPECT_EQ(sizeOf("a"), 1000);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(NewFileTest, LeavesNothingWhenItIsGivenUp) {
  { NewFile file(path("a").c_str(), Existing::REFUSE); }
  EXPECT_EQ(entries(), 0u);
}

TEST_F(NewFileTest, NeverTakesThePlaceOfAFileUnasked) {
  write("a", "precious");
  EXPECT_EQ(codeOf("a", Existing::REFUSE), "TRP-disk-003");
  EXPECT_EQ(sizeOf("a"), 8);
}

TEST_F(NewFileTest, NorOfOneThatCameMeanwhile) {
  NewFile file(path("a").c_str(), Existing::REFUSE);
  write("a", "precious");
  EXPECT_THROW(file.publish(), kj::Exception);
  EXPECT_EQ(sizeOf("a"), 8);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(NewFileTest, ReplacesAtOnceAndOnlyWhenPublished) {
  write("a", "old");
  {
    NewFile file(path("a").c_str(), Existing::REPLACE);
    ASSERT_EQ(ftruncate(file.fd(), 1000), 0);
    EXPECT_EQ(sizeOf("a"), 3);
    file.publish();
  }
  EXPECT_EQ(sizeOf("a"), 1000);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(NewFileTest, KeepsTheModeOfWhatItReplaces) {
  write("a", "private");
  {
    NewFile file(path("a").c_str(), Existing::REPLACE);
    file.publish();
  }
  struct stat info;
  ASSERT_EQ(stat(path("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(NewFileTest, ReplacesWhatALinkNamesAndKeepsTheLink) {
  write("a", "old");
  ASSERT_EQ(symlink("a", path("link").c_str()), 0);
  {
    NewFile file(path("link").c_str(), Existing::REPLACE);
    ASSERT_EQ(ftruncate(file.fd(), 1000), 0);
    file.publish();
  }
  EXPECT_EQ(sizeOf("a"), 1000);
  struct stat info;
  ASSERT_EQ(lstat(path("link").c_str(), &info), 0);
  EXPECT_TRUE(S_ISLNK(info.st_mode));
}

TEST_F(NewFileTest, DoesNotReplaceADiskInUseOrAFolder) {
  write("a", "old");
  int user = open(path("a").c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(user, F_OFD_SETLK, &lock), 0);
  EXPECT_EQ(codeOf("a", Existing::REPLACE), "TRP-cfg-024:");
  close(user);
  EXPECT_EQ(codeOf("", Existing::REPLACE), "TRP-disk-004");
  EXPECT_EQ(codeOf(".", Existing::REPLACE), "TRP-cfg-019:");
  EXPECT_EQ(codeOf("missing/a", Existing::REFUSE), "TRP-disk-004");
}

}  // namespace
}  // namespace troupe
