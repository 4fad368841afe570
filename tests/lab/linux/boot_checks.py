"""Boots unmodified Debian Linux with `troupe run`, inside the lab, and checks what came of it.

usage: boot_checks.py BIN_DIR INITRD ROOT_DISK    (linux_run.py says what they are)

Each run prints its checks; the exit status is 0 when none failed.
"""

from linux_run import Run, check, check_disk, console_has_hello, finish

run = Run("as-root", end="reboot")
run.finish(status=16)
check_disk(run)
console_has_hello(run)

run = Run("as-user-2-cpus", cpus=2, end="button", user=1000)
check("button: the guest waits", run.wait_for("WAITING FOR THE BUTTON"), run.serial_text()[-2000:])
pressed = run.troupe("power-button", run.name)
check("button: troupe power-button says so", pressed.returncode == 0, pressed.stderr)
run.finish(status=0)
check_disk(run)
console_has_hello(run)

# RAM on both sides of the hole, more vCPUs than this machine has, and features taken away.
run = Run("four-cpus", cpus=4, memory="3074M", words="above4g=1 masked=rdrand,sse4_2",
          extra=("--cpu-mask", "rdrand,sse4_2"))
run.finish(status=0)
check_disk(run)

finish()
