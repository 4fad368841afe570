# The random number generator, as Linux uses it. Read by guest_devices_init.
same current "$(cat /sys/class/misc/hw_random/rng_current)" virtio_rng.0
dd if=/dev/hwrng of=/tmp/random bs=4096 count=16 2> /dev/null
same length "$(wc -c < /tmp/random)" 65536
tell read "$(md5sum < /tmp/random | cut -d ' ' -f 1)"
await
dd if=/dev/hwrng of=/tmp/more bs=4096 count=16 2> /dev/null
cmp -s /tmp/random /tmp/more && why="the same bytes twice" || why=
check differs "$why"
# What random bytes make of gzip: nothing smaller.
[ "$(gzip -c /tmp/random | wc -c)" -gt 65536 ] && why= || why="they can be compressed"
check no_pattern "$why"
