// What a bundle lets its paths lead to.
#include "vmm/realm/bundle.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/files/temporary_folder.h"

namespace troupe::realm {
namespace {

class Folder: public testing::TemporaryFolder {
 public:
  Folder() {
    std::filesystem::create_directories(path + "/bundle/data");
    std::filesystem::create_directories(path + "/granted/deep");
    write("bundle/kernel", "kernel");
    write("bundle/data/disk", "disk");
    write("granted/image", "image");
    write("granted/deep/image", "deep");
    write("secret", "secret");
  }

  void link(const std::string& target, const std::string& name) {
    std::filesystem::create_symlink(target, path + "/" + name);
  }
  kj::AutoCloseFd directory(const std::string& name) {
    return kj::AutoCloseFd(open((path + "/" + name).c_str(), O_PATH | O_CLOEXEC));
  }
};

struct Grants {
  void add(const char* path, kj::AutoCloseFd fd) {
    paths.push_back(path);
    fds.add(kj::mv(fd));
  }
  FlatNamespace::Reader reader() {
    auto root = message.initRoot<FlatNamespace>();
    auto list = root.initPaths(paths.size());
    for (size_t i = 0; i < paths.size(); i++)
      list.set(i, paths[i]);
    return root.asReader();
  }
  Bundle bundle(const std::string& url) {
    auto names = reader();
    return Bundle(url.c_str(), names, fds.releaseAsArray());
  }

  capnp::MallocMessageBuilder message;
  std::vector<const char*> paths;
  kj::Vector<kj::AutoCloseFd> fds;
};

template <typename Call>
std::string refusalOf(Call&& call) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { call(); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

std::string textOf(const Bundle& bundle, const char* path) {
  auto fd = bundle.open("file", path, O_RDONLY);
  char text[64];
  ssize_t got = read(fd, text, sizeof(text));
  return std::string(text, kj::max(got, ssize_t(0)));
}

std::string refusal(const Bundle& bundle, const char* path) {
  return refusalOf([&] { bundle.open("disk", path, O_RDONLY); });
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

TEST(Bundle, IsNamedByAPathOrAFileUrl) {
  Folder folder;
  auto path = folder.path + "/bundle";
  for (auto url : {path, "file://" + path, "file://localhost" + path, path + "/"})
    EXPECT_EQ(textOf(Grants().bundle(url), "/kernel"), "kernel") << url;
  EXPECT_STREQ(pathOfUrl("file:///a%20b%2Fc").cStr(), "/a b/c");
}

TEST(Bundle, AnyOtherUrlIsRefused) {
  Folder folder;
  for (auto url : {"", "relative", "fuchsia-pkg://fuchsia.com/debian", "file://host/x",
                   "file:///a%2", "file:///a%00b", "file:///%zz", "/nonexistent-bundle"})
    EXPECT_TRUE(has(refusalOf([&] { Grants().bundle(url); }), "TRP-rlm-007")) << url;
  EXPECT_TRUE(has(refusalOf([&] { Grants().bundle(folder.path + "/secret"); }), "TRP-rlm-007"));
}

TEST(Bundle, PathsAreMeantFromItWithOrWithoutASlash) {
  Folder folder;
  auto bundle = Grants().bundle(folder.path + "/bundle");
  EXPECT_EQ(textOf(bundle, "kernel"), "kernel");
  EXPECT_EQ(textOf(bundle, "//data//disk"), "disk");
  EXPECT_TRUE(has(refusal(bundle, "/absent"), "TRP-cfg-018: disk of the bundle \"/absent\""));
}

TEST(Bundle, ALinkWithinIsFollowedAndOneThatLeadsOutIsNot) {
  Folder folder;
  folder.link("data/disk", "bundle/inside");
  folder.link("../secret", "bundle/above");
  folder.link(folder.path + "/bundle/kernel", "bundle/absolute");
  folder.link("..", "bundle/data/up");
  folder.link("../..", "bundle/data/upper");
  folder.link("circle", "bundle/circle");
  folder.link("/proc/self/fd/0", "bundle/magic");
  auto bundle = Grants().bundle(folder.path + "/bundle");
  EXPECT_EQ(textOf(bundle, "/inside"), "disk");
  EXPECT_EQ(textOf(bundle, "/data/up/kernel"), "kernel");
  for (auto path : {"/above", "/absolute", "/data/upper/secret", "/circle", "/magic"})
    EXPECT_TRUE(has(refusal(bundle, path), "TRP-rlm-008")) << path;
}

TEST(Bundle, TwoDotsAreRefusedEvenWhereTheyStayInside) {
  Folder folder;
  auto bundle = Grants().bundle(folder.path + "/bundle");
  for (auto path : {"..", "../secret", "/data/../kernel", "/data/..", "/../secret"})
    EXPECT_TRUE(has(refusal(bundle, path), "TRP-rlm-008")) << path;
  folder.write("bundle/..kernel", "dots");
  EXPECT_EQ(textOf(bundle, "/..kernel"), "dots");
}

TEST(Bundle, WhatIsNoRegularFileIsRefusedWithoutBeingOpened) {
  Folder folder;
  ASSERT_EQ(mkfifo((folder.path + "/bundle/pipe").c_str(), 0600), 0);
  auto bundle = Grants().bundle(folder.path + "/bundle");
  EXPECT_TRUE(has(refusal(bundle, "/pipe"), "TRP-rlm-008"));
  EXPECT_TRUE(has(refusal(bundle, "/pipe"), "is a named pipe"));
  EXPECT_TRUE(has(refusal(bundle, "/data"), "is a directory"));
  EXPECT_TRUE(has(refusal(bundle, "/"), "names a directory"));
  EXPECT_TRUE(has(refusal(bundle, ""), "names a directory"));
  Grants grants;
  grants.add("/dev", kj::AutoCloseFd(open("/dev", O_PATH | O_CLOEXEC)));
  auto withDevices = grants.bundle(folder.path + "/bundle");
  EXPECT_TRUE(has(refusal(withDevices, "/dev/null"), "is a character device"));
}

TEST(Bundle, AGrantedDirectoryHasThePathsThatBeginWithItsName) {
  Folder folder;
  Grants grants;
  grants.add("/pkg", folder.directory("granted"));
  grants.add("/pkg/deep/", folder.directory("granted/deep"));
  auto bundle = grants.bundle(folder.path + "/bundle");
  EXPECT_EQ(textOf(bundle, "/pkg/image"), "image");
  EXPECT_EQ(textOf(bundle, "/pkg/deep/image"), "deep");
  EXPECT_EQ(textOf(bundle, "/kernel"), "kernel");
  folder.link("../secret", "granted/out");
  EXPECT_TRUE(has(refusal(bundle, "/pkg/out"), "TRP-rlm-008"));
  EXPECT_TRUE(has(refusal(bundle, "/pkg"), "names a directory"));
  EXPECT_TRUE(has(refusal(bundle, "/pkgs/image"), "TRP-cfg-018"));
}

TEST(Bundle, GrantsThatCannotBeAreRefused) {
  Folder folder;
  auto refused = [&](std::vector<const char*> paths, std::vector<const char*> names) {
    Grants grants;
    grants.paths = paths;
    for (auto name : names)
      grants.fds.add(folder.directory(name));
    return refusalOf([&] { grants.bundle(folder.path + "/bundle"); });
  };
  EXPECT_EQ(refused({"/pkg"}, {"granted"}), "");
  EXPECT_TRUE(has(refused({"/pkg"}, {}), "TRP-rlm-009"));
  EXPECT_TRUE(has(refused({}, {"granted"}), "TRP-rlm-009"));
  EXPECT_TRUE(has(refused({"pkg"}, {"granted"}), "TRP-rlm-009"));
  EXPECT_TRUE(has(refused({"/"}, {"granted"}), "TRP-rlm-009"));
  EXPECT_TRUE(has(refused({"/a/../b"}, {"granted"}), "TRP-rlm-009"));
  EXPECT_TRUE(has(refused({"/pkg", "/pkg/"}, {"granted", "granted"}), "granted twice"));
  EXPECT_TRUE(has(refused({"/pkg"}, {"secret"}), "is given a regular file"));
}

TEST(Bundle, ItsOwnTextIsReadWithinBounds) {
  Folder folder;
  folder.write("bundle/guest.cfg", "{}");
  auto bundle = Grants().bundle(folder.path + "/bundle");
  EXPECT_EQ(KJ_ASSERT_NONNULL(bundle.readText("guest.cfg")).size(), 2u);
  EXPECT_TRUE(bundle.readText("troupe.json") == nullptr);
  auto refused = [&]() { return refusalOf([&] { bundle.readText("troupe.json"); }); };
  folder.write("bundle/troupe.json", std::string((64 << 10) + 1, ' '));
  EXPECT_TRUE(has(refused(), "larger than 64 KiB"));
  std::filesystem::remove(folder.path + "/bundle/troupe.json");
  folder.link("../secret", "bundle/troupe.json");
  EXPECT_TRUE(has(refused(), "leads out"));
  std::filesystem::remove(folder.path + "/bundle/troupe.json");
  ASSERT_EQ(mkfifo((folder.path + "/bundle/troupe.json").c_str(), 0600), 0);
  EXPECT_TRUE(has(refused(), "named pipe"));
}

}  // namespace
}  // namespace troupe::realm
