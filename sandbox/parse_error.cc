#include "sandbox/parse_error.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "protos/profile.pb.h"

namespace troupe::sandbox {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

// Columns as the tokenizer counts them.
constexpr int TAB_WIDTH = 8;

int nextColumn(int column, char c) {
  return c == '\t' ? column + TAB_WIDTH - column % TAB_WIDTH : column + 1;
}

size_t offsetOf(const std::string& text, int line, int column) {
  size_t at = 0;
  for (; line > 0 && at < text.size(); at++)
    line -= text[at] == '\n';
  for (int reached = 0; reached < column && at < text.size() && text[at] != '\n'; at++)
    reached = nextColumn(reached, text[at]);
  return at;
}

SourceLocation locationOf(const std::string& path, const std::string& text, size_t offset) {
  int line = 0, column = 0;
  for (size_t i = 0; i < offset; i++) {
    column = text[i] == '\n' ? 0 : nextColumn(column, text[i]);
    line += text[i] == '\n';
  }
  return {path, line + 1, column + 1};
}

bool isWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

// The message that a place in the text is inside of; none when its surroundings are no profile.
const Descriptor* messageAt(const std::string& text, size_t offset) {
  std::vector<const Descriptor*> stack = {policy::Profile::descriptor()};
  std::string word;
  for (size_t i = 0; i < offset; i++) {
    char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), offset);
    } else if (c == '"' || c == '\'') {
      for (i++; i < offset && text[i] != c; i++)
        i += text[i] == '\\';
    } else if (isWord(c)) {
      bool begins = i == 0 || !isWord(text[i - 1]);
      word = begins ? std::string(1, c) : word + c;
    } else if (c == '{' || c == '<') {
      const Descriptor* outer = stack.back();
      auto field = outer == nullptr ? nullptr : outer->FindFieldByName(word);
      stack.push_back(field == nullptr ? nullptr : field->message_type());
    } else if ((c == '}' || c == '>') && stack.size() > 1) {
      stack.pop_back();
    }
  }
  return stack.back();
}

size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// "; there are a, b and c", and the one that is meant if one is likely.
std::string choices(const std::string& word, const std::vector<std::string>& known) {
  std::string list, nearest;
  size_t best = 3;
  for (size_t i = 0; i < known.size(); i++) {
    list += (i == 0 ? "" : i + 1 == known.size() ? " and " : ", ") + known[i];
    // Words of any length come from outside; none that is far longer is meant.
    size_t far = word.size() > 64 ? best : distance(word, known[i]);
    if (far >= best || far >= known[i].size()) continue;
    best = far;
    nearest = known[i];
  }
  return (known.size() == 1 ? "; there is " : "; there are ") + list +
         (nearest.empty() ? "" : "; the nearest is " + nearest);
}

std::vector<std::string> keysOf(const Descriptor& message) {
  std::vector<std::string> keys;
  for (int i = 0; i < message.field_count(); i++)
    keys.push_back(message.field(i)->name());
  return keys;
}

std::vector<std::string> valuesOf(const EnumDescriptor& type) {
  std::vector<std::string> values;
  // The first means that nothing was said, unless it is a choice by itself.
  for (int i = 0; i < type.value_count(); i++) {
    const std::string& name = type.value(i)->name();
    bool said = name.find("UNSPECIFIED") == std::string::npos;
    if (said) values.push_back(name);
  }
  return values;
}

// What stands between the n-th pair of '"' of a message.
std::string quoted(const std::string& message, int n) {
  size_t end = 0, begin = 0;
  for (int i = 0; i <= n; i++) {
    begin = message.find('"', end);
    if (begin == std::string::npos) return "";
    end = message.find('"', begin + 1);
    if (end == std::string::npos) return "";
    end++;
  }
  return message.substr(begin + 1, end - begin - 2);
}

bool beginsWith(const std::string& text, const std::string& part) {
  return text.compare(0, part.size(), part) == 0;
}

struct Explanation {
  std::string word;  // the error is at the last one before the place; "": at the place
  std::string text;
};

Explanation explain(const std::string& text, size_t offset, const std::string& message) {
  std::string first = quoted(message, 0), second = quoted(message, 1);
  const Descriptor* inside = messageAt(text, offset);
  if (beginsWith(message, "Message type ") && message.find(" has no field") != std::string::npos) {
    std::string what = "there is no key \"" + second + "\" here";
    return {second, what + (inside == nullptr ? "" : choices(second, keysOf(*inside)))};
  }
  if (beginsWith(message, "Unknown enumeration value")) {
    std::string what = "\"" + first + "\" is no `" + second + "`";
    const FieldDescriptor* field = inside == nullptr ? nullptr : inside->FindFieldByName(second);
    const EnumDescriptor* type = field == nullptr ? nullptr : field->enum_type();
    return {first, what + (type == nullptr ? "" : choices(first, valuesOf(*type)))};
  }
  if (beginsWith(message, "Non-repeated field")) {
    return {first, "`" + first + "` is given twice; drop one"};
  }
  if (beginsWith(message, "Expected string")) return {"", message + "; texts stand in quotes"};
  if (beginsWith(message, "Expected integer"))
    return {"", message + "; numbers stand without quotes"};
  return {"", message};
}

}  // namespace

ProfileError explainParseError(const std::string& path, const std::string& text, int line,
                               int column, const std::string& message) {
  size_t offset = offsetOf(text, std::max(line, 0), std::max(column, 0));
  Explanation explanation = explain(text, offset, message);
  if (!explanation.word.empty() && offset >= explanation.word.size()) {
    size_t word = text.rfind(explanation.word, offset - explanation.word.size());
    if (word != std::string::npos) offset = word;
  }
  return ProfileError(locationOf(path, text, offset), explanation.text);
}

}  // namespace troupe::sandbox
