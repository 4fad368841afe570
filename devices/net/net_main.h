#pragma once

namespace troupe::net {

// The process troupe-net: a virtio network device on one tap or socket.
int netMain();

}  // namespace troupe::net
