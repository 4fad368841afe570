#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::sandbox {

// The small files of /proc and of control groups, which are read and written in one go.

// What the file says, cut after 16 KiB; none when it cannot be read, and errno tells why.
kj::Maybe<kj::String> readSmallFile(kj::StringPtr path);

// Writes to a file that exists. 0, or the errno with which the kernel refused.
int writeSmallFile(kj::StringPtr path, kj::StringPtr text);

// Whether `word` stands in `text` between blanks or line ends.
bool hasWord(kj::StringPtr text, kj::StringPtr word);

// The number after `key` at the beginning of a line ("oom_kill 2"); 0 when there is none.
uint64_t numberAfter(kj::StringPtr text, kj::StringPtr key);

}  // namespace troupe::sandbox
