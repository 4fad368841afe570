"""The balloon filled and emptied again and again, while the guest reads a disk: in no test, as the emulated
processor does not live through it (README.md, "What the emulated processor loses")."""

import time

from devices import balloon

ROUNDS = 4


class BalloonRounds(balloon.Balloon):
    def during(self):
        self.wait("reads")
        for number in range(ROUNDS):
            begun = time.monotonic()
            for target, wanted in ("128M", 384), ("512M", 0):
                self.balloon(target)
                yes, now = self.until_holds(wanted)
                self.check(f"round {number}: it holds {wanted} MiB", yes, f"it holds {now} MiB")
            print(f"round {number}: {time.monotonic() - begun:.0f} s", flush=True)
            self.reply("over" if number + 1 == ROUNDS else "on")
