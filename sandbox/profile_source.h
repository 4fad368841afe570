#pragma once

#include <google/protobuf/text_format.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "protos/profile.pb.h"

namespace troupe::sandbox {

// Where something stands in a profile; line and column count from 1.
struct SourceLocation {
  std::string file;
  int line;
  int column;
};

// What is wrong with a profile: "file:line:column: what, and what to do".
class ProfileError final: public std::runtime_error {
 public:
  ProfileError(const SourceLocation& where, const std::string& what);
};

// One parsed file.
struct SourceFile {
  std::string path;
  policy::Profile profile;
  google::protobuf::TextFormat::ParseInfoTree locations;
};

// Where field `name` (its index-th value) of a message stands. `tree`: the locations of that
// message.
SourceLocation locate(const SourceFile& file,
                      const google::protobuf::TextFormat::ParseInfoTree* tree,
                      const google::protobuf::Message& message, const std::string& name,
                      int index = 0);

// The locations inside the index-th message of field `name`.
const google::protobuf::TextFormat::ParseInfoTree* inside(
    const google::protobuf::TextFormat::ParseInfoTree* tree,
    const google::protobuf::Message& message, const std::string& name, int index = 0);

// Parses `path`. Throws ProfileError.
std::unique_ptr<SourceFile> parseSource(const std::string& path);

// Parses `path` and everything it includes (the includes of threads aside), each file once,
// included files first. All are named from `root`. `includer`: where `path` itself was included, if
// it was. Throws ProfileError.
std::vector<std::unique_ptr<SourceFile>> readSources(const std::string& root,
                                                     const std::string& path,
                                                     const SourceLocation* includer = nullptr);

}  // namespace troupe::sandbox
