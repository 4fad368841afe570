# The memory sample with two ranges of guest RAM: in the middle, and above 4 GiB.
actor: "sample_ranges"
include: "devices/virtio/device.profile"

fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }

memory {
  access: RANGES
  fd: "ram"
  range { address: 0x200000 size: 0x2000 }
  range { address: 0x100001000 size: 0x1000 }
}
