#!/usr/bin/env -S python3 -B
"""50 kills amid writes to qcow2 images, of the disk's process and of the whole VM, by turns."""

import time
import unittest

import durability
import report
from durability import SECTOR, sector_of, wrong_sectors

KILLS = 50
SIZE = 2 * SECTOR
PLACES = 4
BEFORE = bytes(8 * SIZE)


def disk_with(*numbers, seed=7):
    """A disk to which these blocks were written."""
    disk = bytearray(BEFORE)
    for number in numbers:
        block = 1 + number * durability.STRIDE % PLACES
        for sector in range(block * 2, block * 2 + 2):
            disk[sector * SECTOR:(sector + 1) * SECTOR] = sector_of(seed, number, sector)
    return bytes(disk)


class WhatIsRight(unittest.TestCase):
    """The judge of the kills: each sector holds the last flushed or a later write."""

    def wrong(self, after, flushed):
        return len(wrong_sectors(BEFORE, after, (7, SIZE, PLACES), flushed))

    def testWhatWasFlushedMustBeThere(self):
        self.assertEqual(self.wrong(disk_with(1, 2, 3), 3), 0)
        self.assertEqual(self.wrong(disk_with(1, 3), 3), 2)

    def testWhatWasNotFlushedMayBeThere(self):
        self.assertEqual(self.wrong(disk_with(1, 2, 3, 4, 5), 2), 0)

    def testAnOlderBlockInTheSamePlaceIsWrong(self):
        self.assertEqual(self.wrong(disk_with(1, 2, 3, 4), 5), 2)
        self.assertEqual(self.wrong(disk_with(2, 3, 4, 5), 5), 0)

    def testABlockInAnotherPlaceIsWrong(self):
        moved = bytearray(disk_with(1))
        moved[14 * SECTOR:15 * SECTOR] = sector_of(7, 2, 14)
        self.assertEqual(self.wrong(bytes(moved), 1), 1)

    def testATornSectorIsWrong(self):
        torn = bytearray(disk_with(1, 2))
        start = torn.index(sector_of(7, 2, (1 + 2 * durability.STRIDE % PLACES) * 2))
        torn[start + 256:start + SECTOR] = bytes(256)
        self.assertEqual(self.wrong(bytes(torn), 1), 1)

    def testWhatNobodyWroteIsWrong(self):
        self.assertEqual(self.wrong(disk_with(1, 2, seed=8), 0), 4)


class Kills(unittest.TestCase):

    def testWhatWasFlushedSurvivesAndImagesAreSound(self):
        seed = int(time.time())
        killer = durability.Killer(seed)
        self.addCleanup(killer.close)
        for _ in range(KILLS):
            self.assertIsNone(killer.step(), f"seed {seed}")
        print(f"{KILLS} kills: {killer.summary()}")
        self.assertGreater(killer.flushed, KILLS)


if __name__ == "__main__":
    report.main()
