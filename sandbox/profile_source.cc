#include "sandbox/profile_source.h"

#include <fcntl.h>
#include <google/protobuf/io/tokenizer.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>

#include "sandbox/parse_error.h"

namespace troupe::sandbox {
namespace {

using google::protobuf::Message;
using google::protobuf::TextFormat;
using Locations = TextFormat::ParseInfoTree;

// What a profile includes, itself included. Each is parsed once, so this bounds all of reading.
constexpr size_t MAX_FILES = 64;

// Messages of a profile are four deep.
constexpr int MAX_DEPTH = 16;

// Keeps the first error: those after it are mostly its echoes.
class FirstError final: public google::protobuf::io::ErrorCollector {
 public:
  FirstError(const std::string& file, const std::string& text) : file(file), text(text) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (error) return;
    error = std::make_unique<ProfileError>(explainParseError(file, text, line, column, message));
  }

  std::unique_ptr<ProfileError> error;

 private:
  const std::string& file;
  const std::string& text;
};

void checkEncoding(const std::string& path, const std::string& text) {
  if (text.size() > MAX_PROFILE_BYTES) {
    throw ProfileError({path, 1, 1},
                       "is longer than 262144 bytes; a profile is a text of a few pages");
  }
  auto beginsWith = [&](const char* mark) { return text.compare(0, strlen(mark), mark) == 0; };
  if (beginsWith("\xff\xfe") || beginsWith("\xfe\xff")) {
    throw ProfileError({path, 1, 1}, "is UTF-16; a profile is plain ASCII text: save it as such");
  }
  int line = 1, column = 1;
  for (unsigned char c : text) {
    if (c == '\n') {
      line++;
      column = 1;
      continue;
    }
    if (c >= 0x7f || (c < 0x20 && c != '\t' && c != '\r')) {
      char byte[8];
      snprintf(byte, sizeof(byte), "0x%02x", c);
      throw ProfileError({path, line, column},
                         std::string("a profile is plain ASCII text, and here ") + "is a byte " +
                             byte + ": save it as ASCII");
    }
    column++;
  }
}

std::unique_ptr<SourceFile> parse(const std::string& path, const std::string& text) {
  checkEncoding(path, text);
  auto file = std::make_unique<SourceFile>();
  file->path = path;
  FirstError errors(file->path, text);
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(&file->locations);
  parser.SetRecursionLimit(MAX_DEPTH);
  bool sound = parser.ParseFromString(text, &file->profile);
  if (errors.error) throw *errors.error;
  if (!sound) throw ProfileError({path, 1, 1}, "is not a profile");
  return file;
}

class SourceReader {
 public:
  explicit SourceReader(const ProfileFiles& files) : files(files) {}

  const SourceFile* read(const std::string& path, const SourceLocation* includer) {
    if (std::find(stack.begin(), stack.end(), path) != stack.end()) {
      throw ProfileError(*includer, "\"" + path +
                                        "\" includes itself through this line; drop one include "
                                        "of the loop");
    }
    auto known = done.find(path);
    if (known != done.end()) return known->second;
    if (done.size() + stack.size() >= MAX_FILES) {
      throw ProfileError(*includer, "a profile consists of 64 files at most");
    }
    stack.push_back(path);
    std::string text = textOf(path, includer);
    auto file = parse(files.shownPath(path), text);
    for (int i = 0; i < file->profile.include_size(); i++) {
      auto where = locate(*file, &file->locations, file->profile, "include", i);
      file->includes.push_back(read(file->profile.include(i), &where));
    }
    stack.pop_back();
    const SourceFile* result = file.get();
    done[path] = result;
    sources.push_back(std::move(file));
    return result;
  }

  std::vector<std::unique_ptr<SourceFile>> sources;

 private:
  std::string textOf(const std::string& path, const SourceLocation* includer) const {
    if (auto text = files.read(path)) return std::move(*text);
    if (includer == nullptr) throw ProfileError({path, 1, 1}, "there is no such file");
    throw ProfileError(*includer, "there is no \"" + path +
                                      "\"; includes are named from the root of the tree, and a "
                                      "file of your own is listed in `includes` of actor_profile");
  }

  const ProfileFiles& files;
  std::vector<std::string> stack;
  std::map<std::string, const SourceFile*> done;
};

}  // namespace

std::string describe(const SourceLocation& where) {
  if (where.line == 0) return "built in";
  return where.file + ":" + std::to_string(where.line) + ":" + std::to_string(where.column);
}

ProfileError::ProfileError(const SourceLocation& where, const std::string& what)
    : std::runtime_error(describe(where) + ": " + what), where(where), message(what) {}

std::optional<std::string> FolderFiles::read(const std::string& path) const {
  std::string full = root.empty() || path[0] == '/' ? path : root + "/" + path;
  auto fail = [&](int error) -> std::optional<std::string> {
    if (error == ENOENT || error == ENOTDIR) return std::nullopt;
    throw ProfileError({path, 1, 1}, std::string("cannot be read: ") + strerror(error));
  };
  // A pipe without a writer must not stop us.
  int fd = open(full.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return fail(errno);
  std::string text(MAX_PROFILE_BYTES + 1, '\0');
  size_t size = 0;
  ssize_t bytes;
  while (size < text.size() && (bytes = ::read(fd, &text[size], text.size() - size)) > 0)
    size += bytes;
  int error = size < text.size() && bytes < 0 ? errno : 0;
  close(fd);
  if (error != 0) return fail(error);
  text.resize(size);
  return text;
}

SourceLocation locate(const SourceFile& file, const Locations* tree, const Message& message,
                      const std::string& name, int index) {
  SourceLocation where{file.path, 1, 1};
  if (tree == nullptr) return where;
  auto field = message.GetDescriptor()->FindFieldByName(name);
  auto location = tree->GetLocation(field, field->is_repeated() ? index : -1);
  // Of a list in brackets only the beginning is recorded.
  while (location.line < 0 && field->is_repeated() && index > 0)
    location = tree->GetLocation(field, --index);
  if (location.line >= 0) where = {file.path, location.line + 1, location.column + 1};
  return where;
}

const Locations* inside(const Locations* tree, const Message& message, const std::string& name,
                        int index) {
  if (tree == nullptr) return nullptr;
  auto field = message.GetDescriptor()->FindFieldByName(name);
  return tree->GetTreeForNested(field, field->is_repeated() ? index : -1);
}

void requireName(const SourceFile& file, const Locations* tree,
                 const google::protobuf::Message& message, const std::string& field,
                 const std::string& name) {
  bool sound = !name.empty() && name.size() <= 32 &&
               std::all_of(name.begin(), name.end(), [](unsigned char c) {
                 return std::islower(c) || std::isdigit(c) || c == '_' || c == '-';
               });
  if (!sound) {
    throw ProfileError(locate(file, tree, message, field),
                       "`" + field + "` is \"" + name +
                           "\"; it has 1 to 32 lower-case letters, digits, '_' or '-'");
  }
}

std::vector<std::unique_ptr<SourceFile>> readSources(const ProfileFiles& files,
                                                     const std::string& path,
                                                     const SourceLocation* includer) {
  SourceReader reader(files);
  reader.read(path, includer);
  return std::move(reader.sources);
}

}  // namespace troupe::sandbox
