#pragma once

#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// The network device that "tap=NAME|fd=N[:N…]|user[,mac=MAC][,mtu=N][,queues=N][,hostfwd=FORWARD]…
// [,pcap=PATH][,rate=RATE][,rate-in=RATE][,rate-out=RATE][,nospoof]" describes.
void parseNet(kj::StringPtr text, NetOptions::Builder net);

}  // namespace troupe
