#include "vmm/policy/catalogue.h"

#include <map>

#include "vmm/policy/built_in_profiles.h"

namespace troupe {

std::optional<std::string> BuiltInFiles::read(const std::string& path) const {
  for (size_t i = 0; i < BUILT_IN_PROFILE_COUNT; i++) {
    if (path == BUILT_IN_PROFILES[i].path) return BUILT_IN_PROFILES[i].text;
  }
  return std::nullopt;
}

std::vector<sandbox::CataloguedActor> builtInActors() {
  std::map<std::string, std::string> sorted;
  for (size_t i = 0; i < BUILT_IN_PROFILE_COUNT; i++) {
    std::string text = BUILT_IN_PROFILES[i].text;
    const std::string key = "\nactor: \"";
    size_t begin = ("\n" + text).find(key);
    if (begin == std::string::npos) continue;
    begin += key.size() - 1;
    sorted[text.substr(begin, text.find('"', begin) - begin)] = BUILT_IN_PROFILES[i].path;
  }
  std::vector<sandbox::CataloguedActor> result;
  for (const auto& [name, path] : sorted)
    result.push_back({name, path});
  return result;
}

std::vector<sandbox::CataloguedActor> replaceableActors() {
  std::vector<sandbox::CataloguedActor> result;
  for (auto& actor : builtInActors()) {
    bool isOfNoVm =
        actor.name == "compiler" || actor.name == "disk_tool" || actor.name == "replayer";
    if (!isOfNoVm) result.push_back(std::move(actor));
  }
  return result;
}

}  // namespace troupe
