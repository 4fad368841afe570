# The memory sample with all of guest RAM, as block, console and entropy device have it.
actor: "sample_all"
include: "devices/virtio/device.profile"

fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }
