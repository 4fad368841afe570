#pragma once

#include <kj/array.h>
#include <kj/string.h>

namespace troupe {

// What follows the name of a command, for shells that complete it.
enum class Completes { NOTHING, VMS, FILES };

struct CompletedVerb {
  kj::StringPtr name;
  kj::StringPtr help;
  Completes arguments;
};

// A script for "bash" or "zsh" that completes the commands of `troupe`, their options and the names
// of running VMs. Options are asked of `troupe COMMAND --help`, so they are never out of date.
// Throws a user error for another shell.
kj::String completionScript(kj::StringPtr shell, kj::ArrayPtr<const CompletedVerb> verbs);

}  // namespace troupe
