#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::sandbox {

// Pieces of JSON as text. Profiles are ASCII, and so is all that is made of them.
std::string jsonString(const std::string& text);
std::string jsonArray(const std::vector<std::string>& elements);

// An object, its members in the order in which they were added.
class JsonObject {
 public:
  JsonObject& add(const std::string& key, const std::string& text);
  JsonObject& addFlag(const std::string& key, bool value);
  JsonObject& addNumber(const std::string& key, uint64_t value);
  // `json` is JSON itself.
  JsonObject& addRaw(const std::string& key, const std::string& json);

  std::string text() const { return "{" + members + "}"; }

 private:
  std::string members;
};

}  // namespace troupe::sandbox
