#pragma once

#include <kj/string.h>

namespace troupe {

// Where the bytes of a console or of the serial port go.
struct Endpoint {
  enum class Kind { STDIO, PTY, FILE, SOCKET };
  Kind kind;
  kj::String path;  // with FILE and SOCKET
};

enum class PtyAllowed { NO, YES };

// "stdio", "pty", "file=PATH" or "socket=PATH", as `option` says it. Throws a user error for
// anything else.
Endpoint parseEndpoint(kj::StringPtr option, kj::StringPtr text, PtyAllowed pty);

}  // namespace troupe
