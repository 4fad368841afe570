#pragma once

#include <string>
#include <vector>

#include "sandbox/profile_source.h"
#include "sandbox/source_location.h"

namespace troupe::sandbox {

// The text of a profile that is changed in places and stays as its writer left it elsewhere. The
// text must be one that parses.
class ProfileText {
 public:
  explicit ProfileText(const std::string& text) : content(text) {}

  const std::string& text() const { return content; }

  // Adds `lines` at the end of the block of `place`: a stage, or "thread:NAME". Makes the block
  // where there is none.
  void add(const std::string& place, const std::string& lines);

  // Removes all blocks `name` that stand in no other.
  void eraseAll(const std::string& name);

  // Removes the block whose name stands at `where`, and its line where nothing else is in it.
  void erase(const SourceLocation& where);

  void append(const std::string& lines) { content += lines; }

 private:
  struct Block {
    std::string name;
    size_t begin, open, close;  // of the name; of the braces
  };
  std::vector<Block> blocks(size_t begin, size_t end) const;
  std::string threadName(const Block& block) const;
  void erase(const Block& block);

  std::string content;
};

// What the profile `path` says but for its rules, its includes taken into it: fds, layers, limits
// and its threads by their names. Throws ProfileError.
std::string withoutRules(const ProfileFiles& files, const std::string& path);

}  // namespace troupe::sandbox
