#pragma once

#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// The console that
// "stdio|pty|file=PATH|socket=PATH[,name=NAME][,port][,size=COLUMNSxROWS|off][,replay=on|off]"
// describes. A comma that belongs to a path is written twice.
void parseConsole(kj::StringPtr text, ConsoleOptions::Builder console);

}  // namespace troupe
