#pragma once

#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// The socket device that "[cid=N][,socket=PATH][,forward=PORT:PATH]…" describes. A comma that
// belongs to a path is written twice.
void parseVsock(kj::StringPtr text, VsockOptions::Builder vsock);

}  // namespace troupe
