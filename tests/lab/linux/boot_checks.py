"""Boots unmodified Debian Linux with `troupe run`, inside the lab, and checks what came of it.

usage: boot_checks.py BIN_DIR INITRD ROOT_DISK    (linux_run.py says what they are)

Each run prints its checks; the exit status is 0 when none failed.
"""

import os
import subprocess
import time

from linux_run import Run, bin_dir, check, check_disk, console_has_hello, finish

run = Run("as-root")
run.finish(status=0)
check_disk(run)
console_has_hello(run)

run = Run("as-user-2-cpus", cpus=2, end="reboot", user=1000)
run.finish(status=16)
check_disk(run)
console_has_hello(run)

run = Run("button", end="button")
check("button: the guest waits", run.wait_for("WAITING FOR THE BUTTON"), run.serial_text()[-2000:])
pressed = subprocess.run([os.path.join(bin_dir, "troupe"), "power-button", "button"],
                         env=run.environment, capture_output=True, text=True)
check("button: troupe power-button says so", pressed.returncode == 0, pressed.stderr)
run.finish(status=0)

# In one VM: a reboot, a panic, a pause, a reset button; `stop` asks systems that listen.
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

# RAM on both sides of the hole, more vCPUs than this machine has, and features taken away.
run = Run("four-cpus", cpus=4, memory="3074M", words="above4g=1 masked=rdrand,sse4_2",
          extra=("--cpu-mask", "rdrand,sse4_2"))
run.finish(status=0)
check_disk(run)

finish()
