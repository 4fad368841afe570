"""Reboots, panics, pauses, resets and stops unmodified Debian Linux in its VM, inside the lab.

usage: life_checks.py BIN_DIR INITRD ROOT_DISK    (linux_run.py says what they are)
"""

import time

from linux_run import Run, check, check_disk, finish


def started_anew(run, times):
    check(f"{run.name}: boot {times} comes to its end", run.wait_for("CHECKS DONE", times=times),
          run.serial_text()[-2000:])


# One VM that boots four times; each boot finds what the ones before it wrote.
run = Run("lives", cpus=2, end="reboot,crash,wait,button", on_reboot="restart")
started_anew(run, 2)  # after a reboot
started_anew(run, 3)  # after a panic
run.paused = True
check("lives: troupe pause", run.troupe("pause", "lives").returncode == 0)
check("lives: troupe status", run.status()["state"] == "paused")
paused = time.monotonic()

# Meanwhile another one, which is not to start anew.
panics = Run("panics", end="crash")
panics.finish(status=21)

# A watchdog that is not told of the pause complains after 20 s.
time.sleep(max(0, paused + 30 - time.monotonic()))
check("lives: troupe resume", run.troupe("resume", "lives").returncode == 0)
run.paused = False
time.sleep(5)
check("lives: no watchdog complains", "lockup" not in run.serial_text() and
      "stall" not in run.serial_text(), run.serial_text()[-2000:])
check("lives: troupe reset", run.troupe("reset", "lives").returncode == 0)
check("lives: the guest waits", run.wait_for("WAITING FOR THE BUTTON"), run.serial_text()[-2000:])
check("lives: troupe stop", run.troupe("stop", "--timeout", "120", "lives").returncode == 0)
run.finish(status=0)
check("lives: it booted four times", run.serial_text().count("CHECKS DONE") == 4)
check_disk(run)

finish()
