# Works disks of every kind and all other devices while the host kills all processes of theirs every second.
# Read by guest_devices_init.
# modules: net/core/failover drivers/net/net_failover drivers/net/virtio_net drivers/virtio/virtio_balloon
# modules: net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport
# programs: fio mke2fs e2fsck socat
names="plain slow image volatile"
disk_of() { # serial
  for disk in /sys/block/vd*; do
    [ "$(cat "$disk/serial")" != "$1" ] || echo "${disk##*/}"
  done
}

# Each round writes the same places from the same buffers anew, and reads them back.
{
  printf '[global]\nioengine=libaio\niodepth=32\ndirect=1\nverify=crc32c\nverify_fatal=1\ndo_verify=1\n'
  printf 'rw=randwrite\nbs=4k\nsize=512k\nloops=2\n'
  for name in $names; do
    for cpu in 0 1; do
      printf '[%s%s]\nfilename=/dev/%s\ncpus_allowed=%s\noffset=%sM\n' $name $cpu "$(disk_of $name)" $cpu $((16 + cpu))
    done
  done
} > /tmp/jobs

file_system() { # name: in the first half of its disk
  disk=/dev/$(disk_of "$1")
  "$(real mke2fs)" -q -t ext4 -b 4096 -F "$disk" 4096 || return
  mkdir -p "/mnt/$1"
  mount -t ext4 "$disk" "/mnt/$1" || return
  dd if=/dev/urandom of="/mnt/$1/data" bs=256k count=8 || return
  before=$(md5sum < "/mnt/$1/data" | cut -d ' ' -f 1)
  umount "/mnt/$1" || return
  echo 3 > /proc/sys/vm/drop_caches
  e2fsck -fn "$disk" || return
  mount -t ext4 -o ro "$disk" "/mnt/$1" || return
  [ "$(md5sum < "/mnt/$1/data" | cut -d ' ' -f 1)" = "$before" ] || return
  umount "/mnt/$1" || return
  echo "$before" > "/tmp/file_$1"
}

rounds() {
  round=0
  while [ ! -e /tmp/enough ]; do
    round=$((round + 1))
    fio --output-format=terse /tmp/jobs > /tmp/results 2> /tmp/errors
    # In a terse line 5 is the job's error.
    well=$(awk -F ';' '$5 == 0' /tmp/results | wc -l)
    [ "$well" = 8 ] || echo "round $round: fio: $(cat /tmp/results /tmp/errors)" >> /tmp/wrong
    for name in $names; do
      file_system $name > /tmp/made 2>&1 || echo "round $round: $name: $(tail -n 3 /tmp/made)" >> /tmp/wrong
    done
    echo $round > /tmp/rounds
  done
}
# A connection of the host's, whose segments TCP sends again when a process takes them along.
ip link set eth0 up
ip addr add 10.2.0.2/24 dev eth0
nc -l -p 7000 < /dev/null | md5sum > /tmp/heard &
hearing=$!
rounds &
rounding=$!
# Echoes each stream of the host's; it goes on listening when they end.
socat VSOCK-LISTEN:7,fork PIPE 2> /tmp/echo &
echoing=$!
# Numbers over a port of the console, as fast as it takes them, but for less than its late readers get.
for port in /sys/class/virtio-ports/*; do
  [ "$(cat "$port/name")" != org.example.lines ] || lines=/dev/${port##*/}
done
count() {
  number=0
  while [ ! -e /tmp/enough ]; do
    number=$((number + 1))
    echo $number
    usleep 2000
  done > "$lines"
  echo $number > /tmp/number
}
count &
counting=$!
tell working
await
check listens "$(kill -0 $echoing 2>&1)"
touch /tmp/enough
wait $rounding $hearing $counting
killall socat
same stream "$(cut -d ' ' -f 1 /tmp/heard)" "$reply"
check disks "$(head -n 5 /tmp/wrong 2> /dev/null | tr '\n' ' ')"
check random "$([ "$(head -c 64 /dev/hwrng | wc -c)" = 64 ] || echo "no bytes")"
for name in $names; do saw file_$name "$(cat /tmp/file_$name)"; done
check log "$(dmesg | grep -E 'I/O error|needs reset|EXT4-fs (error|warning)' | head -n 3)"
tell rounds "$(cat /tmp/rounds) rounds of fio and file systems"
tell lines "$(cat /tmp/number)"
await
