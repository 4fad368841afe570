#pragma once

#include <kj/io.h>
#include <kj/string.h>

#include "vmm/config/endpoint.h"
#include "vmm/words/error_codes.h"

namespace troupe {

// A unix socket this process listens on. Its file goes with the object.
class ListeningSocket {
 public:
  // Binds `path` with mode 0600. A socket nobody listens on any more is replaced; anything else in
  // that place is refused with `code`. `purpose` names it in errors ("--serial socket=…").
  ListeningSocket(kj::StringPtr path, kj::StringPtr purpose, const codes::ErrorCode& code);
  ~ListeningSocket() noexcept(false);
  KJ_DISALLOW_COPY(ListeningSocket);

  int fd() const { return socket; }

 private:
  kj::String path;
  kj::AutoCloseFd socket;
  uint64_t inode;
};

// The open end of an Endpoint: what a console or serial actor is handed.
struct EndpointFiles {
  Endpoint::Kind kind;
  kj::AutoCloseFd file;                        // with FILE, and the master with PTY
  kj::String slavePath;                        // with PTY: what the user opens
  kj::Maybe<kj::Own<ListeningSocket>> socket;  // with SOCKET
};

EndpointFiles openEndpoint(kj::StringPtr option, const Endpoint& endpoint);

}  // namespace troupe
