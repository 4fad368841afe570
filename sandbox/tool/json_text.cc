#include "sandbox/tool/json_text.h"

#include <cstdio>

namespace troupe::sandbox {

std::string jsonString(const std::string& text) {
  std::string result = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += char(c);
    } else if (c < 0x20 || c >= 0x7f) {
      char escape[8];
      snprintf(escape, sizeof(escape), "\\u%04x", c);
      result += escape;
    } else {
      result += char(c);
    }
  }
  return result + "\"";
}

std::string jsonArray(const std::vector<std::string>& elements) {
  std::string result;
  for (const std::string& element : elements)
    result += (result.empty() ? "" : ",") + element;
  return "[" + result + "]";
}

JsonObject& JsonObject::addRaw(const std::string& key, const std::string& json) {
  members += (members.empty() ? "" : ",") + jsonString(key) + ":" + json;
  return *this;
}

JsonObject& JsonObject::add(const std::string& key, const std::string& text) {
  return addRaw(key, jsonString(text));
}

JsonObject& JsonObject::addFlag(const std::string& key, bool value) {
  return addRaw(key, value ? "true" : "false");
}

JsonObject& JsonObject::addNumber(const std::string& key, uint64_t value) {
  return addRaw(key, std::to_string(value));
}

}  // namespace troupe::sandbox
