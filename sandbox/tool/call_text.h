#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"

namespace troupe::sandbox {

// How system calls and rules are shown.

// What the manual calls the index-th argument of a call ("prot"); "argument 2" where this is not
// known here.
std::string argumentName(const std::string& syscall, uint32_t index);

// "fd = disk, request = BLKDISCARD"; "-" without conditions.
std::string conditionsText(const PolicyRule& rule);

// "devices/blk/blk.profile:14".
std::string placeText(const SourceLocation& where);

// "read"; with what it answers where the call is not made: "ioctl fails ENOTTY".
std::string callText(const PolicyRule& rule);

// The reason, and where the rule was narrowed.
std::string reasonText(const PolicyRule& rule);

// Of `choices`, the one most like `word`: "; did you mean X?"; "" when none is near.
std::string didYouMean(const std::string& word, const std::vector<std::string>& choices);

}  // namespace troupe::sandbox
