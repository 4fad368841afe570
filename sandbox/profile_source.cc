#include "sandbox/profile_source.h"

#include <google/protobuf/io/tokenizer.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

namespace troupe::sandbox {
namespace {

using google::protobuf::Message;
using google::protobuf::TextFormat;
using Locations = TextFormat::ParseInfoTree;

// Profiles are written by hand: anything larger is something else.
constexpr size_t MAX_PROFILE_BYTES = 256 << 10;

std::string describe(const SourceLocation& where) {
  return where.file + ":" + std::to_string(where.line) + ":" + std::to_string(where.column);
}

// Keeps the first error: those after it are mostly its echoes.
class FirstError final: public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(const std::string& file) : file(file) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!error) error = std::make_unique<ProfileError>(place(line, column), message);
  }

  std::unique_ptr<ProfileError> error;

 private:
  SourceLocation place(int line, int column) const {
    return {file, std::max(line, 0) + 1, std::max(column, 0) + 1};
  }
  const std::string& file;
};

std::string readText(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw ProfileError({path, 1, 1}, std::string("cannot be read: ") + strerror(errno));
  std::string text(std::istreambuf_iterator<char>(stream), {});
  if (text.size() > MAX_PROFILE_BYTES) {
    throw ProfileError({path, 1, 1}, "is " + std::to_string(text.size()) +
                                         " bytes long; a profile has at most 262144");
  }
  int line = 1, column = 1;
  for (unsigned char c : text) {
    if (c == '\n') {
      line++;
      column = 1;
      continue;
    }
    if (c >= 0x7f || (c < 0x20 && c != '\t' && c != '\r')) {
      throw ProfileError({path, line, column}, "a profile is plain ASCII text");
    }
    column++;
  }
  return text;
}

void readInto(const std::string& root, const std::string& path, const SourceLocation* includer,
              std::vector<std::string>& stack, std::set<std::string>& done,
              std::vector<std::unique_ptr<SourceFile>>& files) {
  if (std::find(stack.begin(), stack.end(), path) != stack.end()) {
    throw ProfileError(*includer, "\"" + path + "\" includes itself through this line");
  }
  if (!done.insert(path).second) return;
  std::string full = root.empty() ? path : root + "/" + path;
  if (includer != nullptr && !std::ifstream(full)) {
    throw ProfileError(*includer, "there is no \"" + path +
                                      "\"; includes are named from the root of the tree, and a "
                                      "file of your own is listed in `includes` of actor_profile");
  }
  stack.push_back(path);
  auto file = parseSource(full);
  for (int i = 0; i < file->profile.include_size(); i++) {
    auto where = locate(*file, &file->locations, file->profile, "include", i);
    readInto(root, file->profile.include(i), &where, stack, done, files);
  }
  stack.pop_back();
  files.push_back(std::move(file));
}

}  // namespace

ProfileError::ProfileError(const SourceLocation& where, const std::string& what)
    : std::runtime_error(describe(where) + ": " + what) {}

SourceLocation locate(const SourceFile& file, const Locations* tree, const Message& message,
                      const std::string& name, int index) {
  SourceLocation where{file.path, 1, 1};
  if (tree == nullptr) return where;
  auto field = message.GetDescriptor()->FindFieldByName(name);
  auto location = tree->GetLocation(field, field->is_repeated() ? index : -1);
  if (location.line >= 0) where = {file.path, location.line + 1, location.column + 1};
  return where;
}

const Locations* inside(const Locations* tree, const Message& message, const std::string& name,
                        int index) {
  if (tree == nullptr) return nullptr;
  auto field = message.GetDescriptor()->FindFieldByName(name);
  return tree->GetTreeForNested(field, field->is_repeated() ? index : -1);
}

std::unique_ptr<SourceFile> parseSource(const std::string& path) {
  auto file = std::make_unique<SourceFile>();
  file->path = path;
  std::string text = readText(path);
  FirstError errors(file->path);
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(&file->locations);
  bool sound = parser.ParseFromString(text, &file->profile);
  if (errors.error) throw *errors.error;
  if (!sound) throw ProfileError({path, 1, 1}, "is not a profile");
  return file;
}

std::vector<std::unique_ptr<SourceFile>> readSources(const std::string& root,
                                                     const std::string& path,
                                                     const SourceLocation* includer) {
  std::vector<std::string> stack;
  std::set<std::string> done;
  std::vector<std::unique_ptr<SourceFile>> files;
  readInto(root, path, includer, stack, done, files);
  return files;
}

}  // namespace troupe::sandbox
