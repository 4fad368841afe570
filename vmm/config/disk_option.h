#pragma once

#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// The disk that
// "PATH[,ro|rw|volatile][,format=raw|qcow2][,backing=PATH:FORMAT]…[,id=ID][,serial=TEXT]
// [,direct][,queues=N][,rate=RATE]" describes. A comma that belongs to a path is written twice.
void parseDisk(kj::StringPtr text, DiskConfig::Builder disk);

}  // namespace troupe
