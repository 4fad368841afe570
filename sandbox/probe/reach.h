#pragma once

#include <map>
#include <string>
#include <vector>

#include "sandbox/probe/attempt.h"

namespace troupe::sandbox::probe {

// How scenarios ended, for each group of them, in a line each:
// "open: 104 killed" or "make a process: 5 killed, refused: clone3".
class GroupLines {
 public:
  void add(const std::string& group, const std::string& name, const Report& report);
  // Each line begins with `prefix`.
  std::string text(const std::string& prefix) const;

 private:
  struct Group {
    std::string name;
    // What happened to whom, the most severe first.
    std::map<std::string, std::vector<std::string>> members;
  };
  std::vector<Group> groups;
};

// One word: "killed", "refused", "worked", …
std::string wordFor(const Report& report);

// Breaks a list of words after a heading into lines of fitting length, the later ones indented.
std::string wrapped(const std::string& heading, const std::vector<std::string>& words);

// Compares with the checked-in file, or, with PROBE_WRITE=PATH in the environment, writes it there.
// The difference, empty when there is none.
//
// A line that ends with " [since 6.5]" or " [before 6.5]" holds for these kernels only. Such marks
// are set by hand; writing the file keeps them, and the lines that hold elsewhere.
std::string compareWithFile(const std::string& text, const char* path);

// The same for the lines of a file and a kernel given as "6.1.0-28-cloud-amd64".
std::string compareLines(const std::vector<std::string>& wanted,
                         const std::vector<std::string>& found, const std::string& kernel);
std::vector<std::string> updatedLines(const std::vector<std::string>& old,
                                      const std::vector<std::string>& found,
                                      const std::string& kernel);

}  // namespace troupe::sandbox::probe
