"""How a guest ends that the emulated processor has lost (README.md), and how a script tells `lab`, which
then tries again: by its exit status."""

import os
import re

LOST = 75
STANDSTILL = 90  # seconds without a word from a guest that says TICK every five
# What `troupe` says when KVM finds a shutdown where nothing else is.
SHUTDOWN = re.compile(r"triple fault on vCPU \d+ at RIP 0xfff0\b")
# What the guest's kernel says where no program could lead it. One that is told to crash panics without this.
ASTRAY = re.compile(r"\bBUG: .*|\bOops: .*|\bPANIC: .*|.*stack guard page was hit.*")


def give_up(said, who):
    """Ends the script at once, whatever its other threads are waiting for."""
    print(f"{said}\nLOST {who}", flush=True)
    os._exit(LOST)
