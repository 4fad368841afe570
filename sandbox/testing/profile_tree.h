#pragma once

#include <string>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"
#include "tests/files/temporary_folder.h"

namespace troupe::sandbox::testing {

// A folder with profiles, gone with the test.
class ProfileTree {
 public:
  ProfileTree& add(const std::string& name, const std::string& text) {
    root.write(name, text);
    return *this;
  }
  Policy read(const std::string& name) { return readPolicy(root.path, name); }
  PolicyReading examine(const std::string& name) {
    return examinePolicy(FolderFiles(root.path), name);
  }
  const std::string& folder() const { return root.path; }

  // The error of reading `name`; "" when there is none.
  std::string error(const std::string& name) {
    try {
      readPolicy(root.path, name);
    } catch (const ProfileError& error) {
      return error.what();
    }
    return "";
  }

 private:
  troupe::testing::TemporaryFolder root;
};

}  // namespace troupe::sandbox::testing
