#include "vmm/cli/command_line.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::String argumentsText(size_t most) {
  if (most == 0) return kj::str("no argument");
  return most == 1 ? kj::str("only one argument") : kj::str("only ", most, " arguments");
}

constexpr size_t WIDTH = 80;   // of --help
constexpr size_t COLUMN = 26;  // where it tells of an option

// Fills lines of WIDTH with words. A word that is longer is broken before a '[', as grammars have
// it.
class Filled {
 public:
  Filled(kj::Vector<kj::String>& lines, kj::StringPtr beginning, size_t indent)
      : lines(lines), indent(indent), line(beginning.cStr()) {
    line.resize(std::max(line.size(), indent), ' ');
  }
  ~Filled() noexcept(false) {
    if (line.size() > indent) lines.add(kj::heapString(line.data(), line.size()));
  }

  void add(kj::ArrayPtr<const char> text) {
    auto isSpace = [](char c) { return c == ' ' || c == '\n'; };
    auto at = text.begin();
    while (at != text.end()) {
      auto end = std::find_if(at, text.end(), isSpace);
      if (end != at) word(std::string(at, end));
      at = std::find_if_not(end, text.end(), isSpace);
    }
  }

 private:
  void word(std::string text) {
    size_t gap = line.size() > indent ? 1 : 0;
    if (gap > 0 && line.size() + gap + text.size() > WIDTH) {
      lines.add(kj::heapString(line.data(), line.size()));
      line.assign(indent, ' ');
      gap = 0;
    }
    line.append(gap, ' ').append(text);
    while (line.size() > WIDTH) {
      size_t bracket = line.rfind('[', WIDTH);
      if (bracket == std::string::npos || bracket <= indent) return;
      lines.add(kj::heapString(line.data(), bracket));
      line = std::string(indent, ' ') + line.substr(bracket);
    }
  }

  kj::Vector<kj::String>& lines;
  size_t indent;
  std::string line;
};

void fill(kj::Vector<kj::String>& lines, kj::StringPtr text) {
  Filled(lines, "", 0).add(text);
}

void addHelp(const Option& option, kj::Vector<kj::String>& lines) {
  auto left = kj::str("  --", option.name, option.value.size() > 0 ? " " : "", option.value);
  if (left.size() + 2 > COLUMN) {
    lines.add(kj::mv(left));
    left = kj::str();
  }
  Filled(lines, left, COLUMN).add(option.help);
}

void addParagraphs(kj::StringPtr text, kj::Vector<kj::String>& lines) {
  std::string_view rest(text.begin(), text.size());
  while (!rest.empty()) {
    auto end = std::min(rest.find("\n\n"), rest.size());
    lines.add(kj::str());
    fill(lines, kj::heapString(rest.data(), end));
    rest.remove_prefix(std::min(end + 2, rest.size()));
  }
}

bool isOneOf(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

[[noreturn]] void takesNoValue(kj::StringPtr name, kj::StringPtr given) {
  UserError(codes::OPTION_VALUE,
            kj::str("--", name, " takes no value, but was given ", quote(given)))
      .raise();
}

// Whether a word behind an option whose value may be left out is meant for it.
bool isMeant(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> words) {
  bool isPath = word.findFirst('.') != nullptr || word.findFirst('/') != nullptr;
  return isOneOf(word, words) || (!isPath && !word.startsWith("-"));
}

}  // namespace

CommandLine::CommandLine(kj::StringPtr name, kj::StringPtr summary, kj::StringPtr arguments,
                         kj::StringPtr example, kj::StringPtr jsonHelp)
    : name(name),
      summary(summary),
      arguments(arguments),
      example(example),
      jsonOption{"json", "", jsonHelp, false, [this](kj::StringPtr) { isJson = true; }} {}

void CommandLine::add(Option option) {
  options.add(kj::mv(option));
}

void CommandLine::epilog(kj::StringPtr text) {
  end = text;
}

void CommandLine::exits(kj::StringPtr text) {
  exitCodes = text;
}

Option& CommandLine::find(kj::StringPtr word, kj::StringPtr said) {
  for (auto& option : options) {
    if (option.name == word) return option;
  }
  if (word == jsonOption.name) return jsonOption;
  kj::Vector<kj::StringPtr> names;
  for (auto& option : options)
    names.add(option.name);
  names.add(jsonOption.name);
  UserError error(codes::UNKNOWN_OPTION, kj::str("troupe ", name, " has no option ", quote(said),
                                                 didYouMean(word, names, "--")));
  error.advice("see", kj::str("troupe ", name, " --help")).raise();
}

kj::Maybe<kj::Array<kj::StringPtr>> CommandLine::parse(kj::ArrayPtr<const kj::StringPtr> words,
                                                       size_t maxArguments) {
  kj::Vector<kj::StringPtr> found;
  kj::Vector<kj::StringPtr> seen;
  bool onlyArguments = false;
  for (size_t i = 0; i < words.size(); i++) {
    auto word = words[i];
    if (onlyArguments || !word.startsWith("-") || word == "-") {
      found.add(word);
      continue;
    }
    if (word == "--") {
      onlyArguments = true;
      continue;
    }
    if (word == "--help" || word == "-h") return nullptr;

    auto text = word.startsWith("--") ? word.slice(2) : word.slice(1);
    kj::Maybe<kj::StringPtr> value;
    kj::String optionName;
    KJ_IF_MAYBE (equals, text.findFirst('=')) {
      optionName = kj::heapString(text.begin(), *equals);
      value = text.slice(*equals + 1);
    } else {
      optionName = kj::heapString(text);
    }
    if (optionName == "help") takesNoValue("help", KJ_ASSERT_NONNULL(value));
    auto& option = find(
        optionName, word.startsWith("--") ? kj::str("--", optionName) : kj::str("-", optionName));
    if (!option.repeatable) {
      if (std::find(seen.begin(), seen.end(), option.name) != seen.end()) {
        UserError(codes::GIVEN_TWICE,
                  kj::str("--", option.name, " is given twice; it may stand only once"))
            .raise();
      }
      seen.add(option.name);
    }
    if (option.value.size() == 0) {
      KJ_IF_MAYBE (given, value) takesNoValue(option.name, *given);
      option.apply("");
      continue;
    }
    if (value == nullptr && option.optional.size() > 0) {
      bool follows = i + 1 < words.size() && isMeant(words[i + 1], option.optional);
      value = follows ? words[++i] : kj::StringPtr();
    }
    if (value == nullptr) {
      if (i + 1 == words.size()) {
        UserError(codes::OPTION_VALUE,
                  kj::str("--", option.name, " needs a value: --", option.name, " ", option.value))
            .raise();
      }
      value = words[++i];
    }
    auto& given = KJ_ASSERT_NONNULL(value);
    bool isEmptyByMistake = given.size() == 0 && !option.mayBeEmpty && option.optional.size() == 0;
    if (isEmptyByMistake) {
      UserError(codes::OPTION_VALUE,
                kj::str("--", option.name, " was given \"\", and needs a value: --", option.name,
                        " ", option.value))
          .raise();
    }
    option.apply(given);
  }
  if (found.size() > maxArguments) {
    UserError error(codes::ARGUMENTS,
                    kj::str("troupe ", name, " takes ", argumentsText(maxArguments),
                            ", but was also given ", quote(found[maxArguments])));
    error.advice("see", kj::str("troupe ", name, " --help")).raise();
  }
  return found.releaseAsArray();
}

kj::String CommandLine::help() const {
  kj::Vector<kj::String> lines;
  lines.add(
      kj::str("usage: troupe ", name, " [OPTIONS]", arguments.size() > 0 ? " " : "", arguments));
  fill(lines, summary);
  lines.add(kj::str("\noptions:"));
  for (auto& option : options)
    addHelp(option, lines);
  addHelp(jsonOption, lines);
  lines.add(kj::str("  --help                  print this"));
  addParagraphs(end, lines);
  lines.add(kj::str("\nexample:\n    ", example, "\n"));
  fill(lines, kj::str("exit codes: ", exitCodes, ". docs/errors.md explains the TRP-... codes."));
  return kj::str(kj::strArray(lines, "\n"), "\n");
}

bool parseOnOff(kj::StringPtr option, kj::StringPtr value) {
  if (value == "on") return true;
  if (value == "off") return false;
  UserError(codes::NOT_A_CHOICE, kj::str(option, " expects on or off; it was given ", quote(value)))
      .raise();
}

}  // namespace troupe
