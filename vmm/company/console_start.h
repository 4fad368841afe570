#pragma once

#include <kj/array.h>
#include <kj/vector.h>

#include "devices/console/console.capnp.h"
#include "sandbox/launcher.h"
#include "vmm/config/console_plan.h"
#include "vmm/files/endpoint_files.h"

namespace troupe {

// What the actor of the virtio console is told of its ports and handed for them.
void describeConsoles(kj::ArrayPtr<const ConsolePlan> plans,
                      kj::ArrayPtr<const EndpointFiles> files, ConsoleConfig::Builder config,
                      kj::Vector<sandbox::HandedFd>& fds);

// The same of the serial port.
void describeSerial(const EndpointFiles& files, ConsoleConfig::Builder config,
                    kj::Vector<sandbox::HandedFd>& fds);

}  // namespace troupe
