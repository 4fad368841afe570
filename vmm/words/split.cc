#include "vmm/words/split.h"

namespace troupe {

kj::Vector<kj::String> splitAtCommas(kj::StringPtr text, bool doubledIsLiteral) {
  kj::Vector<kj::String> parts;
  kj::Vector<char> current;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != ',') {
      current.add(text[i]);
    } else if (doubledIsLiteral && i + 1 < text.size() && text[i + 1] == ',') {
      current.add(',');
      i++;
    } else {
      parts.add(kj::heapString(current.begin(), current.size()));
      current.clear();
    }
  }
  parts.add(kj::heapString(current.begin(), current.size()));
  return parts;
}

}  // namespace troupe
