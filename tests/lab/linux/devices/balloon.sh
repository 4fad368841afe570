# The memory balloon: memory that is used, given up, taken and given back. Read by guest_devices_init.
# modules: drivers/virtio/virtio_balloon
# processors: 1
work driver ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio*

has() { # KiB that are free, or would be for the asking
  awk '/^(MemFree|Cached|Buffers):/ { sum += $2 } END { print sum }' /proc/meminfo
}
fill() {
  dd if=/dev/zero of=/tmp/file bs=1M count=96 2> /dev/null
}

fill
tell filled
await
rm /tmp/file
tell removed
await

for disk in /sys/block/vd*; do
  [ "$(cat "$disk/serial")" != cache ] || cache=/dev/${disk##*/}
done
check disk "$([ -n "$cache" ] || echo "there is no disk with the serial cache")"
work cached dd "if=$cache" of=/dev/null bs=1M
tell cached "$(has)"
await
tell inflated "$(has)"
tell total "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
await
tell deflated "$(has)"
await
fill
same kept "$(wc -c < /tmp/file)" $((96 << 20))
tell used
await
rm /tmp/file
# Pages that the host took back and that are used again hold what is written.
dd if=/dev/zero bs=1M count=64 2> /dev/null | tr '\0' x > /tmp/file
same content "$(tr -d x < /tmp/file | wc -c)" 0
rm /tmp/file
tell emptied
await # until the balloon holds most of the memory

# More than is to be had: but for the balloon the kernel would have to kill somebody.
size=$(($(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo) / 1024 + 16))
work squeezed dd if=/dev/zero of=/tmp/file bs=1M count=$size
same squeezed_size "$(wc -c < /tmp/file)" $((size << 20))
check oom "$(dmesg | grep -i 'out of memory' | head -n 1)"
tell squeezed
await
rm /tmp/file
