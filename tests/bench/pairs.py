"""Pairs of measurements, ours beside a peer's, in A-B-B-A order, with a control beside them.

The machine is noisy: a control (two processes that ping each other through eventfds, and a counting
loop) is measured before every pair; a pair whose control moved more than 20 % from the first is
thrown away and repeated, at most as often again as there are pairs.
"""

import os
import statistics
import threading
import time


def control():
    """(microseconds per eventfd round trip, milliseconds for a fixed loop)."""
    there, back = os.eventfd(0), os.eventfd(0)
    rounds = 500

    def answer():
        for _ in range(rounds):
            os.eventfd_read(there)
            os.eventfd_write(back, 1)

    thread = threading.Thread(target=answer)
    thread.start()
    started = time.perf_counter()
    for _ in range(rounds):
        os.eventfd_write(there, 1)
        os.eventfd_read(back)
    ping = (time.perf_counter() - started) / rounds * 1e6
    thread.join()
    os.close(there)
    os.close(back)
    started = time.perf_counter()
    total = 0
    for number in range(200000):
        total += number
    return ping, (time.perf_counter() - started) * 1e3


class Series:
    """Values of both sides and what comes of them."""

    def __init__(self, ours, peer, discarded):
        self.ours, self.peer, self.discarded = ours, peer, discarded
        self.ratios = [a / b for a, b in zip(ours, peer) if b]

    def ratio(self):
        return statistics.median(self.ratios)

    def row(self, label, unit, goal, scale=1.0, best=None):
        """One line of the table; `goal` is text such as '<= 0.40' or '' for none.

        `best`: the ratio of a device that costs nothing, where what it stands on is measured.
        """
        met = ""
        if goal:
            word, bound = goal.split()

            def reaches(ratio):
                return ratio <= float(bound) if word == "<=" else ratio >= float(bound)
            met = "met" if reaches(self.ratio()) else "MISSED"
            if best is not None:
                met += f" (a device of no cost: {best:.2f}" \
                       f"{'' if reaches(best) else ', so out of reach'})"
        noisy = f" [{self.discarded} noisy pairs repeated]" if self.discarded else ""
        return (f"{label:<44} {statistics.median(self.ours) * scale:>10.2f} "
                f"{statistics.median(self.peer) * scale:>10.2f} {unit:<9} "
                f"{self.ratio():>6.2f} [{min(self.ratios):.2f}-{max(self.ratios):.2f}] "
                f"{goal:<8} {met}{noisy}")


HEADER = (f"{'what':<44} {'ours':>10} {'peer':>10} {'unit':<9} {'ratio':>6} [min-max]  goal")


def measure_all(sides, pairs=5):
    """Calls each of `sides` in turn, forwards and backwards (A-B-C-C-B-A); each returns one number.

    The numbers of each side, and how many rounds were thrown away.
    """
    values, discarded = [[] for _ in sides], 0
    reference = control()[1]
    while len(values[0]) < pairs:
        moved = abs(control()[1] / reference - 1) > 0.2
        order = list(range(len(sides)))
        if len(values[0]) % 2:
            order.reverse()
        got = {index: sides[index]() for index in order}
        if (moved or abs(control()[1] / reference - 1) > 0.2) and discarded < pairs:
            discarded += 1
            continue
        for index, value in got.items():
            values[index].append(value)
    return values, discarded


def measure(ours, peer, pairs=5):
    """The two sides of a row."""
    (left, right), discarded = measure_all([ours, peer], pairs)
    return Series(left, right, discarded)
