#!/usr/bin/env bash
# Debian's cloud kernel, unmodified, on `troupe run` inside the lab: see linux/boot_checks.py.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
source_root=$(cd "$here/../.." && pwd)
bin=${TROUPE_BIN:-$(dirname "$(readlink -f bin/troupe)")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

cache=$("$here/kernel")
"$source_root/guest/linux/make_initrd" "$cache"/tree/lib/modules/*/kernel "$work/initrd"
"$source_root/guest/linux/make_root" "$here/linux/guest_init" 64M "$work/root.ext4" > /dev/null

# An ordinary user must be able to reach the executables: they are copied out of root's folders.
"$here/lab" -m 4096 -t 400 -- bash -c "
  mkdir -m 755 /tmp/bin && cp $bin/troupe* /tmp/bin/ && chmod 755 /tmp/bin/* &&
  python3 -B $here/linux/boot_checks.py /tmp/bin $work/initrd $work/root.ext4"
