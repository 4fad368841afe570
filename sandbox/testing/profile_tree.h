#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox::testing {

// A folder with profiles, gone with the test.
class ProfileTree {
 public:
  ProfileTree() {
    char path[] = "/tmp/policy-test-XXXXXX";
    root = mkdtemp(path);
  }
  ~ProfileTree() { std::filesystem::remove_all(root); }

  ProfileTree& add(const std::string& name, const std::string& text) {
    std::ofstream(root + "/" + name) << text;
    return *this;
  }
  Policy read(const std::string& name) { return readPolicy(root, name); }
  PolicyReading examine(const std::string& name) { return examinePolicy(FolderFiles(root), name); }
  const std::string& folder() const { return root; }

  // The error of reading `name`; "" when there is none.
  std::string error(const std::string& name) {
    try {
      readPolicy(root, name);
    } catch (const ProfileError& error) {
      return error.what();
    }
    return "";
  }

 private:
  std::string root;
};

}  // namespace troupe::sandbox::testing
