"""Boots Linux with four vCPUs again and again, inside the lab.

usage: boot_soak.py BIN_DIR INITRD ROOT_DISK troupe|qemu COUNT    (linux_run.py: the first three)

Four vCPUs on the lab's two processors, with memory on both sides of the PCI hole. QEMU boots the
same kernel on the same /dev/kvm, so what fails there as well is the lab's doing. Prints a line a
boot; the exit status is 0 when every boot came to its end.
"""

import subprocess
import sys

import linux_run
from linux_run import Run, initrd, kernel

vmm, count = sys.argv[4], int(sys.argv[5])


def boot_ours(turn):
    before = linux_run.failures
    run = Run(f"four-cpus-{turn}", cpus=4, memory="3074M", words="above4g=1")
    run.finish(status=0)
    subprocess.run(["rm", "-rf", run.folder], check=True)
    return linux_run.failures == before


def boot_peer(_):
    command = [
        "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-smp", "4", "-m",
        "3074M", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd",
        initrd, "-append", "console=ttyS0 quiet panic=-1 rdinit=/bin/false cpus=4", "-serial",
        "stdio",
    ]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=180)
    except subprocess.TimeoutExpired:
        return False
    # Its first process ends at once, which is a panic, and with panic=-1 a reset: all processors
    # were up by then.
    return ended.returncode == 0 and b"Attempted to kill init" in ended.stdout


failed = 0
for turn in range(count):
    passed = (boot_ours if vmm == "troupe" else boot_peer)(turn)
    failed += not passed
    print(f"boot {turn + 1} of {count}: {vmm}: {'ok' if passed else 'FAILED'}", flush=True)
print(f"{count - failed} of {count} boots of {vmm} passed")
sys.exit(1 if failed else 0)
