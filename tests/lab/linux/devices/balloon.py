"""The memory balloon: what it takes from the guest leaves the host's memory, and comes back.

Linux tells free pages by itself, too, so pages that are merely free are the host's after a while. What
is looked at is memory in use: files in the guest's memory, and its page cache.
"""

import json
import os
import time

from device_part import Part

MIB = 1 << 20
RAM = 512 * MIB
CACHE = 160  # MiB of the disk that the guest reads into its cache
FILE = 96  # MiB of the file that it keeps in memory


class Balloon(Part):
    def options(self):
        path = os.path.join(self.folder, "cache")
        with open(path, "wb") as file:
            file.truncate(CACHE * MIB)
        os.chmod(path, 0o644)
        return ["--balloon", "stats", "--disk", f"{path},ro,serial=cache"]

    def host_keeps(self):
        """MiB of guest RAM that the host has in memory."""
        pid = self.pid("broker")
        for number in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{number}"
            if "memfd:guest-ram" in os.readlink(path):
                return os.stat(path).st_blocks * 512 / MIB
        raise AssertionError("the broker has no guest RAM")

    def until(self, done, seconds=150):
        """The last value of `done`, which says (whether, what)."""
        end = time.monotonic() + seconds
        while True:
            yes, seen = done()
            if yes or time.monotonic() > end:
                return yes, seen
            time.sleep(1)  # asking takes the guest's time

    def balloon(self, *words):
        said = self.run.troupe("balloon", self.run.name, *words, "--json")
        if said.returncode != 0:
            raise AssertionError(f"troupe balloon {words}: {said.stderr}")
        return json.loads(said.stdout)

    def until_holds(self, mib):
        def look():
            now = int(self.balloon()["actualBytes"]) // MIB
            return now == mib, now
        return self.until(look)

    def during(self):
        # Free pages come back by themselves: a file in memory, and then none.
        self.wait("filled")
        full = self.host_keeps()
        self.reply()
        self.wait("removed")
        yes, left = self.until(lambda: ((left := self.host_keeps()) < full - FILE * 0.8, left))
        print(f"a file of {FILE} MiB in the guest: the host keeps {full:.0f} MiB, and "
              f"{left:.0f} MiB after the guest has told that its pages are free", flush=True)
        self.check("free pages that the guest reports are the host's again", yes, f"{full}, {left}")
        reported = int(self.balloon()["freePageBytes"])
        self.check("and are counted", reported >= FILE * MIB * 0.8, str(reported))
        self.reply()

        # What fills the guest's cache is in use, until the balloon wants it.
        free = int(self.wait("cached"))
        before = self.host_keeps()
        said = self.run.troupe("balloon", self.run.name, "128M")
        self.check("the target is taken", "is to be left 128M of 512M" in said.stdout,
                   said.stdout + said.stderr)
        yes, now = self.until_holds(384)
        self.check("the guest inflates its balloon", yes, f"it holds {now} MiB")
        yes, after = self.until(lambda: ((after := self.host_keeps()) < before - 40, after), 60)
        print(f"a balloon of 384 MiB: the host kept {before:.0f} MiB and keeps {after:.0f} MiB",
              flush=True)
        self.check("inflating lowers what the host keeps", yes, f"{before}, {after}")
        self.check("the host keeps no more than the guest is left", after < 128, str(after))
        self.reply()
        inflated = int(self.wait("inflated"))
        print(f"MemFree + cache in the guest: {free // 1024} MiB, inflated {inflated // 1024} MiB",
              flush=True)
        self.check("inflating lowers what the guest has", inflated < free - 150 * 1024,
                   f"{free} KiB, {inflated} KiB")

        # Its own numbers agree with ours.
        said = self.run.troupe("balloon", self.run.name)
        print(said.stdout, flush=True)
        numbers = {one["name"]: int(one["value"]) for one in self.balloon()["statistics"]}
        for name in ("free", "total", "available", "disk-caches", "major-faults"):
            self.check(f"the guest's statistic is shown: {name}", f"\n{name} " in said.stdout)
        total = int(self.wait("total")) * 1024
        self.check("its total is the guest's own", numbers.get("total") == total,
                   f"{numbers.get('total')}, {total}")

        self.balloon("512M")
        yes, now = self.until_holds(0)
        self.check("the guest deflates its balloon", yes, f"it holds {now} MiB")
        self.reply()
        deflated = int(self.wait("deflated"))
        self.check("deflating raises what the guest has", deflated > inflated + 150 * 1024,
                   f"{inflated} KiB, {deflated} KiB")
        before = self.host_keeps()
        self.reply()
        self.wait("used")
        used = self.host_keeps()
        print(f"a file of {FILE} MiB in what came back: the host keeps {used:.0f} MiB", flush=True)
        self.check("what came back is memory", used > before + FILE * 0.5, f"{before}, {used}")

        # Hints, which are asked for, and name all that is free: what the guest reports by itself
        # has been reported.
        earlier = self.settled()
        self.balloon("--reclaim")
        yes, later = self.until(lambda: ((later := self.given_back()) > earlier + 100 * MIB, later))
        print(f"asked for its free pages the guest gave {(later - earlier) >> 20} MiB", flush=True)
        self.check("the guest says which pages are free when it is asked", yes,
                   f"{earlier}, {later}")
        self.reply()
        self.wait("emptied")
        self.squeeze()

    def given_back(self):
        return int(self.balloon()["freePageBytes"])

    def settled(self):
        """What the guest has given back of free pages, once it gives no more by itself."""
        last, end = -1, time.monotonic() + 120
        while last != (now := self.given_back()) and time.monotonic() < end:
            last = now
            time.sleep(6)  # it waits two seconds before it reports what was freed
        return last

    def squeeze(self):
        """A guest that has no memory left takes some out of its balloon, without asking."""
        self.balloon("192M")
        yes, now = self.until_holds(320)
        self.check("the guest inflates its balloon again", yes, f"it holds {now} MiB")
        self.reply()
        self.wait("squeezed")
        held = int(self.balloon()["actualBytes"]) // MIB
        print(f"out of memory the guest took {320 - held} MiB out of its balloon", flush=True)
        self.check("a guest out of memory takes some out of its balloon", held < 320, str(held))
        self.balloon("512M")
        yes, now = self.until_holds(0)
        self.check("and the rest when it is told", yes, f"it holds {now} MiB")
        self.reply()
