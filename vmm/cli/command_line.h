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
  // the value if it is one of them, or could be a slip in one. A path, with its dot or slash, is
  // not.
  kj::ArrayPtr<const kj::StringPtr> optional = nullptr;
  // An empty value says something; of others it is an unset variable of a script.
  bool mayBeEmpty = false;
};

// A command of `troupe` and what it accepts. Options are --NAME VALUE or --NAME=VALUE, in any order
// with the arguments; after "--" everything is an argument. Every command has --help and --json.
class CommandLine {
 public:
  // `example`: for --help, one line. `jsonHelp`: what --json does.
  CommandLine(kj::StringPtr name, kj::StringPtr summary, kj::StringPtr arguments,
              kj::StringPtr example, kj::StringPtr jsonHelp = "print JSON");
  KJ_DISALLOW_COPY(CommandLine);

  void add(Option option);

  // More for --help: paragraphs with an empty line between them, which are filled anew.
  void epilog(kj::StringPtr text);

  // What it exits with, for --help, unless that is the usual.
  void exits(kj::StringPtr text);

  // Hands every option to its `apply` and returns the arguments. None when --help was asked for.
  // Throws a user error for what the command does not know; `maxArguments` bounds the arguments.
  kj::Maybe<kj::Array<kj::StringPtr>> parse(kj::ArrayPtr<const kj::StringPtr> words,
                                            size_t maxArguments);

  // After parse(): --json was given.
  bool json() const { return isJson; }

  kj::String help() const;

 private:
  // `said`: the word as it was typed.
  Option& find(kj::StringPtr name, kj::StringPtr said);

  kj::StringPtr name;
  kj::StringPtr summary;
  kj::StringPtr arguments;
  kj::StringPtr example;
  kj::StringPtr end;
  kj::StringPtr exitCodes =
      "0 done, 1 internal error, 2 wrong words or files, 3 the host lacks something";
  kj::Vector<Option> options;
  Option jsonOption;
  bool isJson = false;
};

// The value of an on/off switch. Throws for anything else.
bool parseOnOff(kj::StringPtr option, kj::StringPtr value);

}  // namespace troupe
