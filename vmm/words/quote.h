#pragma once

#include <kj/string.h>

namespace troupe {

// `text` made safe to show: control characters and bytes that are not UTF-8 are escaped (\n, \xNN),
// and what is longer than `limit` bytes is cut with an ellipsis. For text a terminal must not obey:
// arguments, file contents, words of other processes.
kj::String escape(kj::ArrayPtr<const char> text, size_t limit = 400);

// The same in double quotes.
kj::String quote(kj::StringPtr text, size_t limit = 200);

// errno in words, with its name: "no such file or directory (ENOENT)".
kj::String errnoText(int error);

// A word of a command that is shown to be typed: as it is, or quoted for bash.
kj::String shellWord(kj::StringPtr text);

// Of `choices`, the one a slip of the keyboard away from `word`; none when all are far.
kj::Maybe<kj::StringPtr> nearest(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> choices);

// "; did you mean --kernel?" or nothing.
kj::String didYouMean(kj::StringPtr word, kj::ArrayPtr<const kj::StringPtr> choices,
                      kj::StringPtr prefix = "");

// "a, b or c".
kj::String listChoices(kj::ArrayPtr<const kj::StringPtr> choices);

}  // namespace troupe
