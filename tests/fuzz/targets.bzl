"""Every fuzz target, and the planted bugs it finds (tests/fuzz/planted.h)."""

TARGETS = [
    "//broker:fuzz_transport",
    "//devices/console:fuzz_console",
    "//devices/rng:fuzz_rng",
    "//devices/virtio:fuzz_ring",
]

PLANTED = {
    "//broker:fuzz_transport": [
        "status-order",
        "config-bounds",
    ],
    "//devices/virtio:fuzz_ring": [
        "double-fetch",
        "indirect-length",
        "used-ring-overrun",
        "descriptor-loop",
        "answered-twice",
    ],
}
