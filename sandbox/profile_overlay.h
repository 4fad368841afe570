#pragma once

#include <optional>
#include <set>
#include <string>

#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// Profiles that lie over others: a file is taken from `over` where that has one of its path, and
// errors then name it as one of `folder`.
class OverlaidFiles final: public ProfileFiles {
 public:
  OverlaidFiles(const ProfileFiles& over, const std::string& folder, const ProfileFiles& beneath)
      : over(over), folder(folder), beneath(beneath) {}

  std::optional<std::string> read(const std::string& path) const override;
  std::string shownPath(const std::string& path) const override;

  // The paths that were read from `over`.
  const std::set<std::string>& used() const { return taken; }

 private:
  const ProfileFiles& over;
  std::string folder;
  const ProfileFiles& beneath;
  mutable std::set<std::string> taken;
};

}  // namespace troupe::sandbox
