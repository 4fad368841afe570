#!/usr/bin/env bash
# Guests that need no Linux, the payload, on a machine that has what the build machine may not have: a
# device that is nothing but memory (QEMU's ivshmem), memory that its kernel leaves alone, modules. The checks are a program in
# linux/, which is told where `troupe` and the payload are.
# usage: payload_checks.sh CHECKS.py
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
bin=${TROUPE_BIN:-$(dirname "$(readlink -f bin/troupe)")}
payload=${TROUPE_PAYLOAD:-$(readlink -f guest/payload/payload.elf)}
exec "$here/lab" -m 3072 -t "${LAB_SECONDS:-300}" -k "memmap=64M!1G" \
  -q "-object memory-backend-ram,id=window,size=1M,share=on -device ivshmem-plain,memdev=window" \
  -- bash -c "
    mkdir -m 755 /tmp/bin && cp $bin/troupe* /tmp/bin/ && chmod 755 /tmp/bin/* &&
    python3 -B $here/linux/$1 /tmp/bin $payload"
