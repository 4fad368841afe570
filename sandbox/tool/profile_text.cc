#include "sandbox/tool/profile_text.h"

#include <algorithm>
#include <cctype>

namespace troupe::sandbox {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

bool isWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// Past the comment or string that begins at `at`, if one does; else past one character.
size_t next(const std::string& text, size_t at) {
  char c = text[at];
  if (c == '#') {
    size_t end = text.find('\n', at);
    return end == std::string::npos ? text.size() : end;
  }
  if (c != '"' && c != '\'') return at + 1;
  for (size_t i = at + 1; i < text.size(); i++) {
    if (text[i] == '\\') {
      i++;
    } else if (text[i] == c) {
      return i + 1;
    }
  }
  return text.size();
}

size_t offsetOf(const std::string& text, const SourceLocation& where) {
  size_t at = 0;
  for (int line = 1; line < where.line; line++)
    at = text.find('\n', at) + 1;
  return at + where.column - 1;
}

// What an including file says of a layer replaces what it includes; fds, limits and threads add up.
void addWhatItSays(const policy::Profile& file, policy::Profile& all) {
  policy::Profile more = file;
  more.clear_start();
  more.clear_ready();
  more.clear_run();
  more.clear_budget();
  std::vector<const FieldDescriptor*> fields;
  more.GetReflection()->ListFields(more, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string& name = field->name();
    bool addsUp = name == "fd" || name == "limit" || name == "thread" || name == "cgroup";
    if (!addsUp) all.GetReflection()->ClearField(&all, field);
  }
  all.MergeFrom(more);
}

// One value of a field, on a line of its own: "fd { name: \"log\" number: 2 }".
std::string line(const Message& message, const FieldDescriptor& field, int index) {
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string value;
  printer.PrintFieldValueToString(message, &field, index, &value);
  bool block = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  return field.name() + (block ? " { " + value + "}" : ": " + value) + "\n";
}

}  // namespace

std::vector<ProfileText::Block> ProfileText::blocks(size_t begin, size_t end) const {
  std::vector<Block> found;
  size_t depth = 0, word = begin, wordEnd = begin;
  for (size_t at = begin; at < end; at = next(content, at)) {
    char c = content[at];
    if (c == '{') {
      if (depth++ == 0) found.push_back({content.substr(word, wordEnd - word), word, at, 0});
    } else if (c == '}' && depth > 0) {
      if (--depth == 0) found.back().close = at;
    } else if (depth == 0 && isWord(c)) {
      if (at != wordEnd) word = at;
      wordEnd = at + 1;
    }
  }
  return found;
}

std::string ProfileText::threadName(const Block& block) const {
  // "name" is a word at its own level, before a colon and a string.
  size_t depth = 0;
  for (size_t at = block.open + 1; at < block.close; at = next(content, at)) {
    char c = content[at];
    if (c == '{') depth++;
    if (c == '}') depth--;
    if (depth > 0 || content.compare(at, 5, "name:") != 0 || isWord(content[at - 1])) continue;
    size_t quote = content.find_first_of("\"'", at);
    return content.substr(quote + 1, next(content, quote) - quote - 2);
  }
  return "";
}

void ProfileText::add(const std::string& place, const std::string& lines) {
  bool isThread = place.compare(0, 7, "thread:") == 0;
  for (const Block& block : blocks(0, content.size())) {
    bool meant = isThread ? block.name == "thread" && threadName(block) == place.substr(7)
                          : block.name == place;
    if (!meant) continue;
    size_t last = content.find_last_not_of(" \t", block.close - 1);
    bool ownLine = content[last] == '\n';
    if (ownLine) {
      content.insert(last + 1, lines);
    } else {
      content.replace(last + 1, block.close - last - 1, "\n" + lines);
    }
    return;
  }
  std::string name = isThread ? "  name: \"" + place.substr(7) + "\"\n" : "";
  content += "\n" + (isThread ? std::string("thread") : place) + " {\n" + name + lines + "}\n";
}

void ProfileText::erase(const Block& block) {
  size_t begin = content.find_last_not_of(" \t", block.begin - 1);
  begin = block.begin == 0 ? 0 : begin == std::string::npos ? 0 : begin + 1;
  size_t end = block.close + 1;
  bool whole = (begin == 0 || content[begin - 1] == '\n') && content[end] == '\n';
  content.erase(whole ? begin : block.begin, whole ? end + 1 - begin : end - block.begin);
}

void ProfileText::eraseAll(const std::string& name) {
  auto found = blocks(0, content.size());
  for (auto block = found.rbegin(); block != found.rend(); block++) {
    if (block->name == name) erase(*block);
  }
}

void ProfileText::erase(const SourceLocation& where) {
  size_t begin = offsetOf(content, where);
  size_t open = content.find('{', begin);
  size_t depth = 0;
  for (size_t at = open; at < content.size(); at = next(content, at)) {
    if (content[at] == '{') depth++;
    if (content[at] == '}' && --depth == 0) return erase(Block{"", begin, open, at});
  }
}

std::string withoutRules(const ProfileFiles& files, const std::string& path) {
  policy::Profile all;
  for (const auto& source : readSources(files, path))
    addWhatItSays(source->profile, all);
  all.clear_include();
  std::vector<std::string> threads;
  for (const policy::Thread& thread : all.thread())
    threads.push_back(thread.name());
  all.clear_thread();

  std::string text;
  std::vector<const FieldDescriptor*> fields;
  all.GetReflection()->ListFields(all, &fields);
  for (const FieldDescriptor* field : fields) {
    int count = field->is_repeated() ? all.GetReflection()->FieldSize(all, field) : 1;
    for (int i = 0; i < count; i++)
      text += line(all, *field, field->is_repeated() ? i : -1);
  }
  for (const std::string& thread : threads)
    text += "thread {\n  name: \"" + thread + "\"\n}\n";
  return text;
}

}  // namespace troupe::sandbox
