#pragma once

#include <absl/status/status.h>
#include <kj/array.h>
#include <kj/exception.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/exit_codes.h"

namespace troupe {

// An error as its reader sees it: a stable code, one sentence, and where more is known a numbered
// chain of causes and advice ("see: ls -l /dev/kvm").
//
// Inside the program it travels as a kj::Exception whose description is the text of render(), the
// same form in which errors of other actors arrive.
class UserError {
 public:
  UserError(const codes::ErrorCode& code, kj::String message);

  // Adds the next link of the chain. Words of another process are escaped and cut.
  UserError& cause(kj::StringPtr text);

  // Adds a line such as ("see", "ls -l /dev/kvm").
  UserError& advice(kj::StringPtr kind, kj::StringPtr text);

  [[noreturn]] void raise() const;
  kj::Exception toException(kj::Exception::Type type = kj::Exception::Type::FAILED) const;
  kj::String render() const;

 private:
  kj::String code;
  kj::String message;
  kj::Vector<kj::String> causes;
  kj::Vector<kj::String> advices;
};

// What a library says of bytes it cannot read, "expected a >= b [1 >= 2]; the text ends early",
// without the condition that stands in its source.
kj::StringPtr withoutCondition(kj::StringPtr text);

// What another actor said, made fit to be a cause: code and RPC's prefix dropped, escaped, cut.
kj::String hostileReason(const kj::Exception& exception);

// An error of an actor in `troupe`'s words: it keeps the code the actor gave if it has a known
// form, else it gets `fallback`.
UserError wrapActorError(const kj::Exception& exception, const codes::ErrorCode& fallback,
                         kj::StringPtr message);

// An error of another `troupe`'s, or of a process that passes it on and may be in somebody's hands:
// as it is, line by line, escaped and cut. `fallback` and `message`: for one without a code of
// ours.
kj::Exception passedOn(const kj::Exception& exception, const codes::ErrorCode& fallback,
                       kj::StringPtr message);

// The one mapping to the outside. An exception without a code is an internal error.
absl::Status toStatus(const kj::Exception& exception);
ExitCode exitCodeOf(const absl::Status& status);

}  // namespace troupe
