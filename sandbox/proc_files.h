#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

namespace troupe::sandbox {

// Reading what the kernel says of a process. `folder` is an fd of /proc/PID; nothing read here is
// longer than a few pages, and what is longer is cut. None: it cannot be read, and errno says why.

kj::Maybe<kj::AutoCloseFd> openAt(int folder, const char* path, int flags);
kj::Maybe<kj::String> readAll(int folder, const char* path);
kj::Maybe<kj::String> readLink(int folder, const char* path);

// The names in a folder, "." and ".." aside.
kj::Maybe<kj::Array<kj::String>> listFolder(int folder, const char* path);

// The value of "Key:\tvalue" in /proc/PID/status; empty when there is none.
kj::String statusField(kj::StringPtr status, kj::StringPtr key);

}  // namespace troupe::sandbox
