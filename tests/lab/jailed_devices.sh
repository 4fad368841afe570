#!/usr/bin/env bash
# In level 1: runs the tests of the jail, as root and as an ordinary user, those of the jailed devices, as
# root and each eighth of them as an ordinary user, and as root the probes of the actors' jails, with disks
# that only a machine of one's own can have.
# usage: jailed_devices.sh FOLDER-OF-TESTS TEST...
set -euo pipefail
tests=$1
shift

# Copied before something is mounted above the original; an ordinary user must be able to reach it.
mkdir -m 755 /tmp/tests
cp -rL "$tests"/. /tmp/tests/
chmod -R go+rX /tmp/tests

load() { [ ! -f "$LAB_MODULES/$1.ko" ] || /bin/busybox insmod "$LAB_MODULES/$1.ko"; }
load drivers/block/loop
load fs/mbcache
load fs/jbd2/jbd2
load fs/ext4/ext4
load drivers/md/dm-mod
load drivers/md/dm-delay
dmesg --console-off

# A disk of `$2` bytes, sparse, with blocks of 4096 bytes: prints the device of the file `$1`.
make_device() {
  truncate -s "$2" "$1"
  losetup --find --show --sector-size 4096 "$1"
}

# ext4 on /var/tmp, where the tests expect a disk: the overlay takes neither O_TMPFILE nor O_DIRECT.
device=$(make_device /run/disk 600M)
mkfs.ext4 -q "$device"
mount "$device" /var/tmp
chmod 1777 /var/tmp

# ext4 above a disk whose writes land a while after they were asked for.
device=$(make_device /run/behind 64M)
DM_DISABLE_UDEV=1 dmsetup create slow --table "0 131072 delay $device 0 0 $device 0 50"
mkfs.ext4 -q /dev/mapper/slow
mkdir /run/slow
mount /dev/mapper/slow /run/slow
chmod 1777 /run/slow

# A device whose reads and writes take half a second, and the same blocks without that.
undelayed=$(make_device /run/undelayed 8M)
DM_DISABLE_UDEV=1 dmsetup create late --table "0 16384 delay $undelayed 0 500 $undelayed 0 500"
chmod 666 /dev/mapper/late "$undelayed"

# ext4 without a free block, but for a sparse file.
mkdir /run/full
device=$(make_device /run/small 8M)
mkfs.ext4 -q -m 0 "$device"
mount "$device" /run/full
truncate -s 1M /run/full/disk
chmod 666 /run/full/disk
dd if=/dev/zero of=/run/full/filler bs=4096 2> /dev/null || true

# A device that cannot be written: the tmpfs of its file has no room.
mkdir /run/tight
mount -t tmpfs -o size=64k tmpfs /run/tight
device=$(make_device /run/tight/disk 1M)
dd if=/dev/zero of=/run/tight/filler bs=4096 2> /dev/null || true
chmod 666 "$device"

# passt wants a way out of the machine, wherever it leads.
ip tuntap add dev world mode tap
ip addr add 192.0.2.2/24 dev world
ip link set world up
ip route add default via 192.0.2.1

failing=$device

# A device that grows, when the test that has it makes its file larger.
device=$(make_device /run/growing 2M)
chmod 666 "$device" /run/growing

# Enough deaths for a machine that is emulated.
settings=(TROUPE_TEST_KILLS=10 TROUPE_TEST_FULL_DISK=/run/full/disk TROUPE_TEST_FAILING_DEVICE="$failing"
  TROUPE_TEST_GROWING_DEVICE="$device" TROUPE_TEST_GROWING_FILE=/run/growing
  TROUPE_TEST_LATE_DEVICE=/dev/mapper/late TROUPE_TEST_UNDELAYED_DEVICE="$undelayed")
cd /tmp/tests
: > /tmp/failed

# Runs one test and shows, when it has ended, what is worth it, in one piece.
run() { # name, command...
  local name=$1 output begun=$SECONDS
  output=$(mktemp)
  shift
  "$@" > "$output" 2>&1 || { echo "FAILED: $name: $*" >> "$output"; echo "$name" >> /tmp/failed; }
  {
    echo "--- $name ($((SECONDS - begun)) s)"
    # Of one that passed, how many, and which took ten seconds and more.
    if grep -q '^FAILED: ' "$output"; then cat "$output"; else
      grep -E '^\[  (PASSED|SKIPPED)|^\[       OK.*\([0-9]{5,} ms\)' "$output"
    fi
  } > "$output.shown" || true
  flock /tmp/failed cat "$output.shown"
}
as_user() { setpriv --reuid 65533 --regid 65533 --clear-groups env -i PATH="$PATH" "$@"; }

# What an ordinary user may do differs in how a jail is made, not in what a device does in it. What takes
# long and depends on no kernel, that is, the garbage of a peer or a driver, is left out.
slow='--gtest_filter=-*.BRK01_*:*.TOC02_*'
work() { # test
  case $1 in
    # All of it would take an hour; what needs no kernel of this version is left out: that the compiled
    # filters judge as written, and single processes for each rule. The rules are tried here as well, in
    # the course of all attempts.
    *_probe_test | */layers_test)
      run "$1" env PROBE_DEADLY_ONES_EACH=64 "./$1" \
        '--gtest_filter=-JailFilters.*:*NumbersWithoutARule*:*EveryRuleHolds*'
      ;;
    # How images grow depends on no kernel.
    */blk_killed_test)
      run "$1" env "${settings[@]}" "./$1" '--gtest_filter=-BlkKilledResized.*'
      run "$1 above a slow disk" env "${settings[@]}" TROUPE_TEST_KILLS=10 unshare --mount \
        sh -c 'mount --bind /run/slow /var/tmp && exec "./$0" --gtest_filter=*/2' "$1"
      ;;
    sandbox/*)
      run "$1" env "${settings[@]}" "./$1"
      run "$1, an ordinary user" as_user "${settings[@]}" "./$1"
      ;;
    *)
      run "$1" env "${settings[@]}" "./$1" "$slow"
      run "$1, an ordinary user, each eighth" as_user "${settings[@]}" GTEST_TOTAL_SHARDS=8 GTEST_SHARD_INDEX=0 "./$1" "$slow"
      ;;
  esac
}
uname -sr
for test in "$@"; do # one for each processor at a time
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  work "$test" &
done
wait
[ ! -s /tmp/failed ]
