#pragma once

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

// Cells in a line of the terminal that standard output is; SIZE_MAX where it is none.
size_t screenColumns();

// Rows of text in columns that are as wide as they need to be, and not wider together than they
// may: then the widest are cut, with an ellipsis where something is missing.
class Table {
 public:
  explicit Table(kj::ArrayPtr<const kj::StringPtr> headings);
  void add(kj::Array<kj::String> row);
  kj::String render(size_t most = screenColumns()) const;

 private:
  kj::Vector<kj::Array<kj::String>> rows;
};

}  // namespace troupe
