#include "sandbox/constants.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "sandbox/constant_tables.h"

namespace troupe::sandbox {
namespace {

const ConstantTable TABLES[] = {callConstants(), kvmConstants(), layerConstants()};

}  // namespace

std::optional<uint64_t> findConstant(const std::string& name) {
  for (const ConstantTable& table : TABLES) {
    for (const Constant& constant : table) {
      if (name == constant.name) return constant.value;
    }
  }
  return std::nullopt;
}

std::string nearestConstant(const std::string& name) {
  std::string best;
  size_t bestLength = 2;  // a shorter common beginning is chance
  for (const ConstantTable& table : TABLES) {
    for (const Constant& constant : table) {
      size_t length = 0;
      while (length < name.size() && constant.name[length] == name[length])
        length++;
      if (length > bestLength) {
        bestLength = length;
        best = constant.name;
      }
    }
  }
  return best;
}

namespace {

bool beginsWith(const char* name, const std::string& prefix) {
  return prefix.compare(0, prefix.size(), name, std::min(prefix.size(), strlen(name))) == 0;
}

bool beginsWithOneOf(const char* name, const std::string& prefixes) {
  size_t begin = 0;
  for (;;) {
    size_t end = std::min(prefixes.find('/', begin), prefixes.size());
    if (beginsWith(name, prefixes.substr(begin, end - begin))) return true;
    if (end == prefixes.size()) return false;
    begin = end + 1;
  }
}

std::string number(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), value < 10 ? "%llu" : "0x%llx",
           static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

std::string constantWords(uint64_t value, const std::string& prefix) {
  bool single = prefix[0] == '=';
  std::string beginnings = prefix.substr(single ? 1 : 0);
  std::vector<const Constant*> candidates;
  for (const ConstantTable& table : TABLES) {
    for (const Constant& constant : table) {
      if (!beginsWithOneOf(constant.name, beginnings)) continue;
      if (constant.value == value) return constant.name;
      if (constant.value != 0) candidates.push_back(&constant);
    }
  }
  if (single) return number(value);
  // The widest first: MAP_SHARED_VALIDATE is MAP_SHARED and MAP_PRIVATE.
  std::stable_sort(candidates.begin(), candidates.end(), [](const Constant* a, const Constant* b) {
    return __builtin_popcountll(a->value) > __builtin_popcountll(b->value);
  });
  std::string words;
  for (const Constant* constant : candidates) {
    if ((value & constant->value) != constant->value) continue;
    words += (words.empty() ? "" : "|") + std::string(constant->name);
    value &= ~constant->value;
  }
  if (value == 0 && !words.empty()) return words;
  return words + (words.empty() ? "" : "|") + number(value);
}

}  // namespace troupe::sandbox
