"""Every fuzz target, and the planted bugs it finds (tests/fuzz/planted.h)."""

TARGETS = [
    "//broker:fuzz_boot",
    "//broker:fuzz_broker_rpc",
    "//broker:fuzz_transport",
    "//devices/balloon:fuzz_balloon",
    "//devices/blk:fuzz_blk",
    "//devices/blk/qcow2:fuzz_qcow2",
    "//devices/console:fuzz_console",
    "//devices/net:fuzz_net",
    "//devices/rng:fuzz_rng",
    "//devices/virtio:fuzz_kept",
    "//devices/virtio:fuzz_ring",
    "//devices/vsock:fuzz_vsock",
    "//sandbox:fuzz_profile",
    "//sandbox:fuzz_setup",
    "//vmm/front:fuzz_front",
    "//vmm/front:fuzz_metrics",
    "//vmm/front:fuzz_realm_front",
    "//vmm/realm:fuzz_guest_cfg",
    "//vmm/record:fuzz_recording",
]

PLANTED = {
    "//broker:fuzz_boot": [
        "kernel-past-ram",
        "initrd-on-kernel",
        "item-length",
    ],
    "//broker:fuzz_broker_rpc": ["config-bounds"],
    "//broker:fuzz_transport": [
        "status-order",
        "config-bounds",
    ],
    "//devices/balloon:fuzz_balloon": [
        "page-outside-ram",
        "statistics-length",
    ],
    "//devices/blk:fuzz_blk": [
        "sector-overflow",
        "read-only",
        "used-length",
        "error-ignored",
        "short-transfer",
        "volatile-copy",
    ],
    "//devices/blk/qcow2:fuzz_qcow2": ["mapping-out-of-file"],
    "//devices/console:fuzz_console": ["unknown-port"],
    "//devices/net:fuzz_net": [
        "checksum-place",
        "spoofed-source",
        "received-length",
    ],
    "//devices/virtio:fuzz_kept": ["kept-length"],
    "//sandbox:fuzz_profile": ["layer-count"],
    "//sandbox:fuzz_setup": ["fd-taken"],
    "//devices/virtio:fuzz_ring": [
        "double-fetch",
        "indirect-length",
        "used-ring-overrun",
        "descriptor-loop",
        "answered-twice",
    ],
    "//devices/vsock:fuzz_vsock": [
        "credit-overrun",
        "early-data",
    ],
    "//vmm/front:fuzz_front": ["long-name"],
    "//vmm/front:fuzz_metrics": ["any-method"],
    "//vmm/front:fuzz_realm_front": [
        "any-call",
        "calls-unbounded",
    ],
    "//vmm/realm:fuzz_guest_cfg": ["ram-upon-ram"],
    "//vmm/record:fuzz_recording": ["event-length"],
}
