#include "sandbox/profile_overlay.h"

namespace troupe::sandbox {

std::optional<std::string> OverlaidFiles::read(const std::string& path) const {
  auto text = over.read(path);
  if (!text) return beneath.read(path);
  taken.insert(path);
  return text;
}

std::string OverlaidFiles::shownPath(const std::string& path) const {
  return taken.count(path) == 0 ? beneath.shownPath(path) : folder + "/" + path;
}

}  // namespace troupe::sandbox
