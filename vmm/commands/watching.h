#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "sandbox/watch/call_watch.h"

namespace troupe {

// What `troupe run` is to write down of its actors' system calls.
//
// `troupe policy learn` asks with a first word of `words` that nobody else has a reason to write,
// and that is taken out: "--watch-calls=all:FOLDER" or "--watch-calls=refused:FOLDER". Filters only
// report then, so neither a configuration file, nor a client, nor the environment can ask for it.
// `troupe policy coverage` asks by its variable: filters are no weaker for being counted.
kj::Maybe<sandbox::WatchRequest> takeWatchRequest(kj::ArrayPtr<const kj::StringPtr>& words);

}  // namespace troupe
