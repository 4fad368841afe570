#pragma once

#include <google/protobuf/text_format.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protos/profile.pb.h"
#include "sandbox/source_location.h"

namespace troupe::sandbox {

// Profiles are written by hand: anything larger is something else.
constexpr size_t MAX_PROFILE_BYTES = 256 << 10;

// Where profiles are read from.
class ProfileFiles {
 public:
  virtual ~ProfileFiles() = default;

  // The content of `path`, of which no more than MAX_PROFILE_BYTES + 1 bytes are needed; none when
  // there is no such file. Throws ProfileError when it cannot be read.
  virtual std::optional<std::string> read(const std::string& path) const = 0;

  // What errors call the file `path`, which was read before.
  virtual std::string shownPath(const std::string& path) const { return path; }
};

// Files named from the folder `root`; "" is the current one.
class FolderFiles final: public ProfileFiles {
 public:
  explicit FolderFiles(const std::string& root) : root(root) {}
  std::optional<std::string> read(const std::string& path) const override;

 private:
  std::string root;
};

// One parsed file.
struct SourceFile {
  std::string path;  // as shown
  policy::Profile profile;
  google::protobuf::TextFormat::ParseInfoTree locations;
  std::vector<const SourceFile*> includes;  // those it names itself
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

// Throws ProfileError unless `name`, the value of `field`, is one that an actor, an fd or a thread
// may have.
void requireName(const SourceFile& file, const google::protobuf::TextFormat::ParseInfoTree* tree,
                 const google::protobuf::Message& message, const std::string& field,
                 const std::string& name);

// Parses `path` and everything it includes (the includes of threads aside), each file once,
// included files first. `includer`: where `path` itself was included, if it was. Throws
// ProfileError.
std::vector<std::unique_ptr<SourceFile>> readSources(const ProfileFiles& files,
                                                     const std::string& path,
                                                     const SourceLocation* includer = nullptr);

}  // namespace troupe::sandbox
