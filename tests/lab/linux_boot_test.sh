#!/usr/bin/env bash
# Debian's cloud kernel, unmodified, on `troupe run` inside the lab: see linux/boot_checks.py.
#
# usage: linux_boot_test.sh [SCRIPT [ARG...]]    another script of linux/ than boot_checks.py
#
# Environment: LAB_GUEST, the guest's first process (of linux/); LAB_ROOT, the size of its root disk;
# LAB_PROGRAMS, what it needs beside busybox; LAB_STUBS, libraries of fio that it shall not have;
# LAB_TREE, a folder whose files it has, too; LAB_GUEST_MODULES, kernel modules beyond the usual ones;
# LAB_SECONDS, the time limit; LAB_PROCESSORS, how many level 1 has.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
source_root=$(cd "$here/../.." && pwd)
bin=${TROUPE_BIN:-$(dirname "$(readlink -f bin/troupe)")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

cache=$("$here/kernel")
# shellcheck disable=SC2086 # libraries, modules and programs are words
"$source_root/guest/linux/make_initrd" "$cache"/tree/lib/modules/*/kernel "$work/initrd" ${LAB_GUEST_MODULES:-}
mkdir "$work/stubs"
# shellcheck disable=SC2086
[ -z "${LAB_STUBS:-}" ] || "$here/linux/make_stubs" fio "$work/stubs" $LAB_STUBS
# shellcheck disable=SC2086
"$source_root/guest/linux/make_root" -L "$work/stubs" ${LAB_TREE:+-t "$LAB_TREE"} "$here/linux/${LAB_GUEST:-guest_init}" \
  "${LAB_ROOT:-64M}" "$work/root.ext4" ${LAB_PROGRAMS:-} > /dev/null

# An ordinary user must be able to reach the executables: they are copied out of root's folders.
script=${1:-boot_checks.py}
shift || true
"$here/lab" -m 4096 -c "${LAB_PROCESSORS:-2}" -t "${LAB_SECONDS:-400}" -- bash -c "
  mkdir -m 755 /tmp/bin && cp $bin/troupe* /tmp/bin/ && chmod 755 /tmp/bin/* &&
  python3 -B $here/linux/$script /tmp/bin $work/initrd $work/root.ext4 $*"
