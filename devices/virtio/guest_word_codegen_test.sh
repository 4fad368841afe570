#!/bin/bash
# TOC-01: every accessor of guest_word.h is one access to guest memory in the machine code.
set -eu

code=$(objdump --disassemble --no-show-raw-insn "$1")
failed=0
for probe in Load8 Load16 Load32 Load64 LoadIndex Store8 Store16 Store32 Store64 StoreIndex CheckTwice; do
  body=$(sed -n "/<probe$probe>:/,/^\$/p" <<<"$code")
  # lea and the nops behind the last ret have operands that look like memory and touch none.
  count=$(grep -vE '\b(nop|lea)' <<<"$body" | grep -c '(%r' || true)
  if [ "$count" != 1 ]; then
    echo "probe$probe has $count memory accesses, not 1:"
    echo "$body"
    failed=1
  fi
done
# The index store is the ring's only full fence.
if ! sed -n '/<probeStoreIndex>:/,/^$/p' <<<"$code" | grep -q 'xchg'; then
  echo "storeIndex() is not an exchange"
  failed=1
fi
exit $failed
