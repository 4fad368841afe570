#!/usr/bin/env bash
# Disks of every kind under Debian's kernel, with fio, mke2fs, e2fsck and blkdiscard: see
# linux/blk_checks.py.
#
# usage: linux_blk_test.sh raw|images
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LAB_GUEST=guest_blk_init LAB_SECONDS=400
export LAB_PROGRAMS="fio blkdiscard lsblk blockdev mke2fs e2fsck"
# What fio reaches storage clusters and other machines with is half of a minute's loading.
export LAB_STUBS="libgfapi.so.0 libnbd.so.0 libibverbs.so.1 librdmacm.so.1 librados.so.2 librbd.so.1
  libpmemblk.so.1 libpmem.so.1"
exec "$here/linux_boot_test.sh" blk_checks.py "$@"
