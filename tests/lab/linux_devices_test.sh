#!/usr/bin/env bash
# The everyday devices under Debian's kernel, all in one boot: see "Devices under Linux" in README.md.
#
# usage: linux_devices_test.sh [PART...]    those of linux/devices/; all, without any
#
# Environment: PARTS, the same as the words; LAB_PROCESSORS, rather than what the parts want.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
folder=$here/linux/devices
[ $# -gt 0 ] || read -r -a parts <<< "${PARTS:-}"
[ $# -eq 0 ] || parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then
  for script in "$folder"/*.sh; do
    name=${script##*/}
    parts+=("${name%.sh}")
  done
fi
wanted() { # what the parts' scripts name in a line "# $1: ..."
  for part in "${parts[@]}"; do
    [ -f "$folder/$part.sh" ] || { echo "linux_devices_test: there is no part $part" >&2; exit 2; }
    sed -n "s/^# $1: //p" "$folder/$part.sh"
  done | tr ' ' '\n' | grep . | awk '!seen[$0]++' | tr '\n' ' '
}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/parts"
for part in "${parts[@]}"; do cp "$folder/$part.sh" "$tree/parts/"; done
LAB_GUEST_MODULES=$(wanted modules) || true
LAB_PROGRAMS=$(wanted programs) || true
LAB_PROCESSORS=${LAB_PROCESSORS:-$(wanted processors | cut -d ' ' -f 1)} || true
export LAB_GUEST=guest_devices_init LAB_TREE=$tree LAB_GUEST_MODULES LAB_PROGRAMS LAB_PROCESSORS
# What fio reaches storage clusters and other machines with is half of a minute's loading.
case " $LAB_PROGRAMS" in
  *" fio "*) export LAB_STUBS="libgfapi.so.0 libnbd.so.0 libibverbs.so.1 librdmacm.so.1 librados.so.2 librbd.so.1
    libpmemblk.so.1 libpmem.so.1" ;;
esac
export LAB_SECONDS=${LAB_SECONDS:-600}
"$here/linux_boot_test.sh" devices_checks.py "${parts[@]}"
