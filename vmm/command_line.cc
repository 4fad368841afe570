#include "vmm/command_line.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

kj::String argumentsText(size_t most) {
  if (most == 0) return kj::str("no argument");
  return most == 1 ? kj::str("only one argument") : kj::str("only ", most, " arguments");
}

bool isOneOf(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

CommandLine::CommandLine(kj::StringPtr name, kj::StringPtr summary, kj::StringPtr arguments)
    : name(name), summary(summary), arguments(arguments) {}

void CommandLine::add(Option option) {
  options.add(kj::mv(option));
}

void CommandLine::epilog(kj::StringPtr text) {
  end = text;
}

Option& CommandLine::find(kj::StringPtr word) {
  for (auto& option : options) {
    if (option.name == word) return option;
  }
  auto names = KJ_MAP(option, options) {
    return option.name;
  };
  UserError error(codes::UNKNOWN_OPTION,
                  kj::str("troupe ", name, " has no option ", quote(kj::str("--", word)),
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
    auto& option = find(optionName);
    if (!option.repeatable) {
      if (std::find(seen.begin(), seen.end(), option.name) != seen.end()) {
        UserError(codes::GIVEN_TWICE,
                  kj::str("--", option.name, " is given twice; it may stand only once"))
            .raise();
      }
      seen.add(option.name);
    }
    if (option.value.size() == 0) {
      KJ_IF_MAYBE (given, value) {
        UserError(codes::OPTION_VALUE,
                  kj::str("--", option.name, " takes no value, but was given ", quote(*given)))
            .raise();
      }
      option.apply("");
      continue;
    }
    if (value == nullptr && option.optional.size() > 0) {
      bool follows = i + 1 < words.size() && isOneOf(words[i + 1], option.optional);
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
    option.apply(KJ_ASSERT_NONNULL(value));
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
  lines.add(kj::str("usage: troupe ", name, options.size() > 0 ? " [OPTIONS]" : "",
                    arguments.size() > 0 ? " " : "", arguments));
  lines.add(kj::str(summary));
  if (options.size() > 0) lines.add(kj::str("\noptions:"));
  for (auto& option : options) {
    auto left = kj::str("  --", option.name, option.value.size() > 0 ? " " : "", option.value);
    constexpr size_t COLUMN = 26;
    if (left.size() + 2 > COLUMN) {
      lines.add(kj::mv(left));
      left = kj::str();
    }
    auto pad = kj::heapArray<char>(COLUMN - left.size());
    memset(pad.begin(), ' ', pad.size());
    lines.add(kj::str(left, pad, option.help));
  }
  if (end.size() > 0) lines.add(kj::str("\n", end));
  return kj::str(kj::strArray(lines, "\n"), "\n");
}

bool parseOnOff(kj::StringPtr option, kj::StringPtr value) {
  if (value == "on") return true;
  if (value == "off") return false;
  UserError(codes::NOT_A_CHOICE, kj::str(option, " expects on or off; it was given ", quote(value)))
      .raise();
}

}  // namespace troupe
