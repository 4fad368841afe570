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
  kj::StringPtr first;  // of what its first argument is one, with '|' between them; empty: anything
};

// A script for "bash" or "zsh" that completes the commands of `troupe`, their options with their
// values, names of running VMs and of realms, and files. Options are asked of `troupe COMMAND
// --help`, so they are never out of date. Nothing that anybody called a VM or a realm is expanded.
// Throws a user error for another shell.
kj::String completionScript(kj::StringPtr shell, kj::ArrayPtr<const CompletedVerb> verbs);

}  // namespace troupe
