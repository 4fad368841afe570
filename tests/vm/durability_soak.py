"""Kills as often as asked, with a line of progress every ten.

usage: durability_soak.py COUNT    from a folder with bin/ and guest/payload/payload.elf
"""

import sys
import time

import durability

count = int(sys.argv[1])
seed = int(time.time())
killer = durability.Killer(seed)
began = time.monotonic()
failures = []
try:
    while killer.kills < count:
        why = killer.step()
        if why:
            failures.append(why)
            print(f"FAILED {why}", flush=True)
        if killer.kills % 10 == 0 or killer.kills == count:
            print(f"{killer.kills} of {count} kills in {time.monotonic() - began:.0f} s, "
                  f"{len(failures)} failed; {killer.summary()}", flush=True)
finally:
    if not failures:
        killer.close()
print(f"{killer.kills} kills, {len(failures)} failed (seed {seed})")
sys.exit(1 if failures else 0)
