#pragma once

#include <capnp/any.h>
#include <capnp/message.h>
#include <kj/vector.h>

#include "sandbox/launcher.h"
#include "vmm/vsock/vsock_files.h"

namespace troupe {

// What the process of a socket device is started with: its configuration
// (devices/vsock/vsock.capnp), which stays in `message`, and its fds.
capnp::AnyPointer::Reader describeVsock(const VsockPlan& plan, const VsockFiles& files,
                                        capnp::MallocMessageBuilder& message);
void handVsock(const VsockFiles& files, kj::Vector<sandbox::HandedFd>& fds);

}  // namespace troupe
