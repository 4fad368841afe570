# The balloon, again and again. Read by guest_devices_init.
# modules: drivers/virtio/virtio_balloon
for disk in /sys/block/vd*; do
  [ "$(cat "$disk/serial")" != cache ] || cache=/dev/${disk##*/}
done
check disk "$([ -n "$cache" ] || echo "there is no disk with the serial cache")"
(while :; do dd "if=$cache" of=/dev/null bs=1M; sleep 1; done) 2> /dev/null &
reader=$!
tell reads
reply=
while [ "$reply" != over ]; do await; done
kill $reader
