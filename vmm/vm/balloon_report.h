#pragma once

#include <cstdint>

#include "protos/control.capnp.h"
#include "protos/device.capnp.h"

namespace troupe {

// The least RAM a guest can be left: with less no kernel goes on.
constexpr uint64_t LEAST_GUEST_BYTES = 16 << 20;

// How many pages a balloon holds that leaves `guestBytes` to a guest with `memoryBytes` of RAM.
// Throws a user error for a size that cannot be.
uint32_t balloonPages(uint64_t guestBytes, uint64_t memoryBytes);

// What a balloon's process says, for users. It is hostile: numbers are brought within what can be.
void writeBalloonStatus(BalloonReport::Reader report, uint64_t memoryBytes,
                        BalloonStatus::Builder status);

// The driver has told that it can hint which pages are free (VIRTIO_BALLOON_F_FREE_PAGE_HINT).
bool canHintFreePages(BalloonReport::Reader report);

}  // namespace troupe
