"""Reboots, panics, pauses, resets and stops unmodified Debian Linux in its VM, inside the lab.

usage: life_checks.py BIN_DIR INITRD ROOT_DISK    (linux_run.py says what they are)
"""

import time

from linux_run import Run, check, check_disk, finish

# The second boot finds what the first one wrote, and powers off.
for end in ("reboot", "crash"):
    run = Run(f"twice-{end}", cpus=2, end=f"twice:{end}", on_reboot="restart")
    check(f"twice-{end}: the guest starts anew", run.wait_for_second("CHECKS DONE"),
          run.serial_text()[-2000:])
    run.finish(status=0)
    check_disk(run)

run = Run("panics", end="crash")
run.finish(status=21)

run = Run("pauses", cpus=2, end="twice:wait", on_reboot="restart")
check("pauses: the guest waits", run.wait_for("CHECKS DONE"), run.serial_text()[-2000:])
check("pauses: troupe pause", run.troupe("pause", "pauses").returncode == 0)
check("pauses: troupe status", run.status()["state"] == "paused")
time.sleep(40)  # a watchdog that is not told complains after 20 s
check("pauses: troupe resume", run.troupe("resume", "pauses").returncode == 0)
time.sleep(5)
check("pauses: no watchdog complains", "lockup" not in run.serial_text() and
      "stall" not in run.serial_text(), run.serial_text()[-2000:])
check("pauses: troupe reset", run.troupe("reset", "pauses").returncode == 0)
run.finish(status=0)
check_disk(run)

run = Run("stops", end="button")
check("stops: the guest waits", run.wait_for("WAITING FOR THE BUTTON"), run.serial_text()[-2000:])
check("stops: troupe stop", run.troupe("stop", "--timeout", "60", "stops").returncode == 0)
run.finish(status=0)

finish()
