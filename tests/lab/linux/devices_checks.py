"""Boots Debian once with all everyday devices, inside the lab, and checks them from both sides.

usage: devices_checks.py BIN_DIR INITRD ROOT_DISK PART...    (linux_run.py says what the first are)

A part is a module of devices/ here and a script of its name in the guest; README.md says how they talk.
The VM runs as an ordinary user. Each part prints its checks; the exit status is 0 when none failed.
"""

import importlib
import os
import re
import sys
import tempfile

from device_part import SLOT, Part, PartThread
from linux_run import Run, check, finish

USER = 1000
names = sys.argv[4:]


class All(Part):
    """When all others are through and everything is in use still."""

    def during(self):
        self.wait("over", seconds=540)
        jail = self.run.troupe("inspect", self.run.name, "jail")
        self.check("every jail is as its profile says", jail.returncode == 0,
                   jail.stdout + jail.stderr)
        self.reply("end")


def load(name):
    """The part that devices/NAME.py defines."""
    module = importlib.import_module(f"devices.{name}")
    kinds = [kind for kind in vars(module).values()
             if isinstance(kind, type) and issubclass(kind, Part) and kind is not Part]
    assert len(kinds) == 1, f"devices/{name}.py has to define one part"
    return make(kinds[0], name)


def make(kind, name):
    folder = tempfile.mkdtemp(prefix=f"{name}.")
    os.chown(folder, USER, USER)
    return kind(name, folder, USER)


parts = [load(name) for name in names] + [make(All, "all")]
mailbox = os.path.join(tempfile.mkdtemp(prefix="mailbox."), "disk")
os.chmod(os.path.dirname(mailbox), 0o755)
with open(mailbox, "wb") as file:
    file.truncate(len(parts) * SLOT)
os.chmod(mailbox, 0o644)

extra, words = ["--disk", f"{mailbox},ro"], [f"parts={','.join(names)}", "mailbox=vdb"]
for slot, part in enumerate(parts):
    part.mailbox, part.slot = mailbox, slot
    extra += part.options()
    words += part.words()
# Each CPU more is one more that the emulation may lose.
run = Run("devices", cpus=max(part.CPUS for part in parts), memory="512M", user=USER,
          words=" ".join(words), extra=extra)
threads = []
for part in parts:
    part.run = run
    threads.append(PartThread(part))
    threads[-1].start()
serial = run.finish(status=0, seconds=540)
for thread in threads:
    thread.join(timeout=20)
    thread.part.check("the host's side has ended", not thread.is_alive())
for line in re.findall(r"(?:BEGIN|SAW) .*", serial):
    print(line)
for part in parts:
    check(f"{part.name}: its script was run", f"BEGIN {part.name} " in serial)
    try:
        part.after()
    except Exception as wrong:  # whatever it is, the others have their say
        part.check("what is left can be looked at", False, repr(wrong))
finish()
