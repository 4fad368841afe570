#!/usr/bin/env bash
# In level 1, whose control groups are complete: actors in groups with limits, alone and in whole VMs,
# as root and as an ordinary user who was given a group to divide.
# usage: limits.sh FOLDER-OF-TESTS
set -euo pipefail
tests=$1
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/sbin:/usr/sbin
groups=/sys/fs/cgroup
user=1000

# Copied before anything is mounted, and to where an ordinary user can reach it.
mkdir -m 755 /tmp/tests /tmp/bin
cp -rL "$tests"/sandbox /tmp/tests/
cp -L "$tests"/bin/troupe* /tmp/bin/
cp -L "$tests"/guest/payload/payload.elf /tmp/payload.elf
chmod -R go+rX /tmp/tests /tmp/bin /tmp/payload.elf

load() { [ ! -f "$LAB_MODULES/$1.ko" ] || /bin/busybox insmod "$LAB_MODULES/$1.ko"; }
load drivers/block/loop
load fs/mbcache
load fs/jbd2/jbd2
load fs/ext4/ext4
dmesg --console-off
truncate -s 64M /run/disk
mkfs.ext4 -q "$(losetup --find --show /run/disk | tee /run/device)"
mkdir /run/files
mount "$(cat /run/device)" /run/files
chmod 777 /run/files
head -c 1M /dev/zero > /run/files/disk
chmod 666 /run/files/disk
export TROUPE_TEST_LOOP_DISK=/run/files/disk

# A group that belongs to the user, with every controller; as systemd delegates them.
echo "+memory +pids +cpu +io" > $groups/cgroup.subtree_control
delegate() {
  mkdir -p "$groups/$1"
  chown $user "$groups/$1" "$groups/$1"/cgroup.{procs,subtree_control,threads}
}
# Runs a command as the user, alone in the group $1.
as_user_in() {
  local group=$1
  shift
  sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$groups/$group" \
    setpriv --reuid $user --regid $user --clear-groups env "$@"
}

failed=0
run() {
  echo "--- $*"
  "$@" > /tmp/output 2>&1 || { cat /tmp/output; echo "FAILED: $*"; failed=1; }
  grep -E '^\[  (PASSED|SKIPPED)|^a start|^ok|^FAIL|^     with' /tmp/output || true
}
uname -sr
cd /tmp/tests
run sandbox/limits/limited_actor_test
# Alone in a group that becomes the ground; and beside others in a leaf of one that passes its
# controllers on.
delegate user
run as_user_in user sandbox/limits/limited_actor_test --gtest_filter=-*DeadVm*
delegate shared
echo "+memory +pids +cpu +io" > $groups/shared/cgroup.subtree_control
delegate shared/shell
sleep 1000 &
echo $! > $groups/shared/shell/cgroup.procs
run as_user_in shared/shell sandbox/limits/limited_actor_test
run python3 -B "$here/limit_checks.py" /tmp/bin /tmp/payload.elf "$tests"
run python3 -B "$here/budget_checks.py" /tmp/bin /tmp/payload.elf "$tests"
exit $failed
