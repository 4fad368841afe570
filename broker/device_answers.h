#pragma once

#include <kj/string.h>

#include <cstdint>

#include "broker/virtio_device.h"
#include "protos/device.capnp.h"

namespace troupe::broker {

// What a device says, checked and copied: the device may be anybody by now.

constexpr size_t MAX_CONFIG_SIZE = 4096;

// Words that are shown to the user: one line of plain characters, of bounded length.
kj::String quoted(kj::StringPtr text);

// What the device `name` is, copied rule by rule of protos/device.capnp. Throws TRP-pci-002 when it
// breaks one.
DeviceDescription checkedDescription(kj::StringPtr name, DeviceInfo::Reader info);

// In milliseconds, brought within what can be.
uint32_t resetDeadlineOf(DeviceInfo::Reader info);

// Field by field: what a later version of the protocol might add is left out. Throws when there is
// more than can be.
void copyReport(DeviceReport::Reader from, DeviceReport::Builder to);

}  // namespace troupe::broker
