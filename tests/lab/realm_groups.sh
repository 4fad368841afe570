#!/usr/bin/env bash
# In level 1, whose control groups are complete: one `troupe serve` with many guests, each actor of each in
# a group of its own, all of which are gone when they have ended; for root, and for an ordinary user who
# was given a group to divide.
# usage: realm_groups.sh FOLDER-OF-TESTS
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
groups=/sys/fs/cgroup
user=1000
mkdir -p /tmp/tests/bin /tmp/tests/guest/payload
cp -L "$1"/bin/troupe* /tmp/tests/bin/
cp -L "$1"/guest/payload/payload.elf /tmp/tests/guest/payload/
chmod -R go+rX /tmp/tests
cd /tmp/tests
echo "+memory +pids +cpu +io" > $groups/cgroup.subtree_control

load() { python3 -B "$here/../vm/realm_load_test.py" "$@" groups; }
load 30 6

# Below a group that is the user's and passes its controllers on, beside other processes in a leaf of it.
for group in shared shared/shell; do
  mkdir "$groups/$group"
  chown $user "$groups/$group" "$groups/$group"/cgroup.{procs,subtree_control,threads}
  [ $group != shared ] || echo "+memory +pids +cpu +io" > $groups/shared/cgroup.subtree_control
done
echo $$ > $groups/shared/shell/cgroup.procs
load 6 3 $user
left=$(find $groups/troupe $groups/shared -mindepth 1 -type d ! -name shell 2> /dev/null || true)
[ -z "$left" ] || { echo "left: $left"; exit 1; }
