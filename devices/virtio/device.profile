# What every virtio device does, but for those that list more narrowly what they need of libc. An
# actor's profile adds its own "kick" and "call", one number of each per queue.
include: "sandbox/common/actor.profile"
include: "devices/virtio/attach.profile"

fd { name: "ram" number: 16 kind: MEMFD from: PLACED closed: true }
