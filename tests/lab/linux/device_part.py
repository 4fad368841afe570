"""What each part of the devices' test is made of: devices/NAME.py here, devices/NAME.sh in the guest."""

import os
import re
import threading
import time

from linux_run import check

SLOT = 4096  # bytes of the mailbox that a part's replies may have


class Abandoned(Exception):
    """The guest did not come to a step of its part."""


class Part:
    """One device's part. A module of devices/ has one subclass, named as it likes.

    folder: the part's own, the user's who runs the VM. user: that user's id; the checks run as root.
    run: the VM (linux_run.Run), from during() on. CPUS: how many vCPUs its work is dealt to.
    """

    CPUS = 1

    def __init__(self, name, folder, user):
        self.name, self.folder, self.user = name, folder, user
        self.run = None
        self.mailbox, self.slot = None, 0
        self.replies = b""

    # What a part says. All are optional.

    def options(self):
        """Makes what the VM needs of the host, and returns the words for `troupe run`."""
        return []

    def words(self):
        """Words for the guest's command line."""
        return []

    def during(self):
        """What the host does while the guest runs: in a thread of its own, from the guest's start on."""

    def after(self):
        """What is checked when the VM has ended."""

    # What a part uses.

    def check(self, name, passed, why=""):
        check(f"{self.name}: {name}", passed, why)

    def wait(self, step, seconds=480):
        """The words behind "PART name: step" once the guest's script has said them."""
        until = time.monotonic() + seconds
        while True:
            alive = self.run.process.poll() is None
            self.run.look()
            found = re.search(rf"^PART {self.name}: {re.escape(step)}(?: (.*))?\r?\n",
                              self.run.serial_text(), re.MULTILINE)
            if found:
                return (found[1] or "").strip()
            if not alive or time.monotonic() > until:
                raise Abandoned(f"the guest has not said \"{step}\"")
            time.sleep(0.1)

    def reply(self, text=""):
        """Answers one `await` of the guest's script, in the order of the calls."""
        number = self.replies.count(b"\n") + 1
        self.put(f"{number} {text}\n".encode())

    def put(self, line):
        self.replies += line
        assert len(self.replies) <= SLOT
        fd = os.open(self.mailbox, os.O_WRONLY)
        os.pwrite(fd, self.replies, self.slot * SLOT)
        os.close(fd)

    def saw(self, name):
        """What the guest's script said with `saw name …`; "" if it did not."""
        found = re.search(rf"SAW {self.name}_{name} (.*)", self.run.serial_text())
        return found[1].strip() if found else ""

    def pid(self, actor):
        """The process of an actor (net0) of the VM, as this process sees it."""
        for row in self.run.status()["actors"]:
            if row["name"] == actor:
                return row["pid"]
        raise Abandoned(f"the VM has no actor {actor}")


class PartThread(threading.Thread):
    """Runs a part's during(); what goes wrong there is a failed check."""

    def __init__(self, part):
        super().__init__(daemon=True)
        self.part = part

    def run(self):
        try:
            self.part.during()
        except Exception as wrong:  # whatever it is, the others go on
            self.part.check("the host's side came to its end", False, repr(wrong))
            self.part.put(b"abandoned\n")
