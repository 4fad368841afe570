#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace troupe::testing {

// An empty folder of the test's, gone with the object. Not below TEST_TMPDIR, whose path is longer
// than a socket's may be.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/troupe-test-XXXXXX";
    if (mkdtemp(name) == nullptr) throw std::runtime_error("no folder below /tmp");
    path = name;
  }
  ~TemporaryFolder() {
    if (!path.empty()) std::filesystem::remove_all(path);
  }
  TemporaryFolder(TemporaryFolder&& other) : path(std::exchange(other.path, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;

  std::string at(const std::string& name) const { return path + "/" + name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(at(name)) << text;
  }

  std::string path;
};

}  // namespace troupe::testing
