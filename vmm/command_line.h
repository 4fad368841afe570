#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

// One option of a command. `value` is what --help shows for its value; empty when it takes none.
struct Option {
  kj::StringPtr name;
  kj::StringPtr value;
  kj::StringPtr help;
  bool repeatable;
  kj::Function<void(kj::StringPtr)> apply;
  // When there are such words, the value may be left out ("" is applied): the word that follows is
  // the value only if it is one of them.
  kj::ArrayPtr<const kj::StringPtr> optional = nullptr;
};

// A command of `troupe` and what it accepts. Options are --NAME VALUE or --NAME=VALUE, in any order
// with the arguments; after "--" everything is an argument.
class CommandLine {
 public:
  CommandLine(kj::StringPtr name, kj::StringPtr summary, kj::StringPtr arguments);

  void add(Option option);

  // Text for the end of --help.
  void epilog(kj::StringPtr text);

  // Hands every option to its `apply` and returns the arguments. None when --help was asked for.
  // Throws a user error for what the command does not know; `maxArguments` bounds the arguments.
  kj::Maybe<kj::Array<kj::StringPtr>> parse(kj::ArrayPtr<const kj::StringPtr> words,
                                            size_t maxArguments);

  kj::String help() const;

 private:
  Option& find(kj::StringPtr name);

  kj::StringPtr name;
  kj::StringPtr summary;
  kj::StringPtr arguments;
  kj::StringPtr end;
  kj::Vector<Option> options;
};

// The value of an on/off switch. Throws for anything else.
bool parseOnOff(kj::StringPtr option, kj::StringPtr value);

}  // namespace troupe
