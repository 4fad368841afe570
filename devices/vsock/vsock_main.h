#pragma once

namespace troupe::vsock {

// The process troupe-vsock: a virtio socket device.
int vsockMain();

}  // namespace troupe::vsock
