"""The random number generator: what the guest read, and that its process does nothing unasked."""

from device_part import Part


class Rng(Part):
    def during(self):
        digest = self.wait("read")
        self.check("the guest has random bytes", len(digest) == 32, digest)
        with open(f"/proc/{self.pid('rng0')}/status", encoding="utf-8") as file:
            threads = [line.split()[1] for line in file if line.startswith("Threads:")]
        self.check("its process has one thread", threads == ["1"], str(threads))
        self.reply()
