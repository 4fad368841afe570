#pragma once

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

// Rows of text in columns that are as wide as they need to be.
class Table {
 public:
  explicit Table(kj::ArrayPtr<const kj::StringPtr> headings);
  void add(kj::Array<kj::String> row);
  kj::String render() const;

 private:
  kj::Vector<kj::Array<kj::String>> rows;
};

}  // namespace troupe
