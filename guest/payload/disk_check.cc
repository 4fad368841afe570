#include "guest/payload/checks.h"
#include "guest/payload/disk.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

namespace payload {
namespace {

constexpr unsigned PIECES = 64;  // requests in flight at once while the pattern is checked
constexpr unsigned PIECE_BYTES = 8192;
constexpr unsigned PIECE_SECTORS = PIECE_BYTES / SECTOR;
constexpr unsigned READ_SECTORS = 8;
constexpr uint32_t UNKNOWN_TYPE = 0x7f;

// Every eight bytes of the disk get a value of their own, another with every `seed`.
uint64_t pattern(uint64_t seed, uint64_t sector, unsigned word) {
  uint64_t x = seed ^ (sector << 6 | word);
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

void fill(uint64_t* piece, uint64_t seed, uint64_t sector) {
  for (unsigned i = 0; i < PIECE_BYTES / 8; ++i) {
    piece[i] = pattern(seed, sector, i);
  }
}

bool matches(const uint64_t* piece, uint64_t seed, uint64_t sector) {
  for (unsigned i = 0; i < PIECE_BYTES / 8; ++i) {
    if (piece[i] != pattern(seed, sector, i)) {
      return false;
    }
  }
  return true;
}

// Pieces spread evenly over the disk, the first and the last of it included, sector 0 left alone.
struct Spread {
  uint64_t sectors;
  unsigned pieces;

  uint64_t sector(unsigned piece) const {
    uint64_t room = sectors - 1 - PIECE_SECTORS;
    return 1 + (pieces > 1 ? room * piece / (pieces - 1) : 0);
  }
};

Spread spreadOver(const Disk& disk) {
  uint64_t fit = (disk.sectors() - 1) / PIECE_SECTORS;
  unsigned pieces = PIECES < disk.slotCount() ? PIECES : disk.slotCount();
  return {disk.sectors(), static_cast<unsigned>(fit < pieces ? fit : pieces)};
}

// Runs one request per piece, all in flight together; counts those answered OK.
unsigned runAll(Disk& disk, uint32_t type, uint64_t* buffers, Spread spread) {
  for (unsigned i = 0; i < spread.pieces; ++i) {
    disk.prepare(i, type, buffers + i * (PIECE_BYTES / 8), PIECE_BYTES, /*split=*/true);
    disk.offer(i, spread.sector(i));
  }
  disk.publish();
  unsigned good = 0;
  for (unsigned i = 0; i < spread.pieces && disk.await(Completion::POLL); ++i) {
    good += disk.status(disk.finished()) == BLK_S_OK;
  }
  return good;
}

void checkPattern(Disk& disk, Subject subject) {
  Spread spread = spreadOver(disk);
  auto buffers = static_cast<uint64_t*>(allocate(PIECES * PIECE_BYTES));
  if (!check(spread.pieces > 0 && buffers, subject, "scratch", spread.pieces, " pieces of ",
             PIECE_BYTES, " bytes")) {
    return;
  }
  uint64_t seed = readTsc();
  for (unsigned i = 0; i < spread.pieces; ++i) {
    fill(buffers + i * (PIECE_BYTES / 8), seed, spread.sector(i));
  }
  unsigned written = runAll(disk, BLK_T_OUT, buffers, spread);
  check(written == spread.pieces, subject, "write", written, " of ", spread.pieces, " done");
  if (disk.canFlush()) {
    uint8_t status = disk.run(BLK_T_FLUSH, 0, nullptr, 0);
    check(status == BLK_S_OK, subject, "flush", "status ", status);
  }
  memset(buffers, 0, PIECES * PIECE_BYTES);
  unsigned readBack = runAll(disk, BLK_T_IN, buffers, spread);
  unsigned good = 0;
  for (unsigned i = 0; i < spread.pieces; ++i) {
    good += matches(buffers + i * (PIECE_BYTES / 8), seed, spread.sector(i));
  }
  check(readBack == spread.pieces && good == spread.pieces, subject, "verify", good, " of ",
        spread.pieces, " as written");
}

// Reads the first sector with an interrupt as its answer.
bool checkInterrupt(Disk& disk, Subject subject, uint8_t* sector) {
  disk.prepare(0, BLK_T_IN, sector, SECTOR);
  disk.offer(0, 0);
  bool interrupted = disk.virtioDevice().publishForInterrupt(disk.virtioRing(), 0);
  uint8_t status = disk.hasFinished() ? disk.status(disk.finished()) : BLK_S_NONE;
  return check(interrupted && status == BLK_S_OK, subject, "interrupt", "status ", status);
}

// Several sectors in one request, which begin as the one read before does; and the last one.
void checkReads(Disk& disk, Subject subject, const uint8_t* firstSector, uint8_t* buffer) {
  unsigned sectors = disk.sectors() < READ_SECTORS ? disk.sectors() : READ_SECTORS;
  uint8_t status = disk.run(BLK_T_IN, 0, buffer, sectors * SECTOR);
  bool same = status == BLK_S_OK && memcmp(buffer, firstSector, SECTOR) == 0;
  check(same, subject, "read", sectors, " sectors, status ", status);
  status = disk.run(BLK_T_IN, disk.sectors() - 1, buffer, SECTOR);
  check(status == BLK_S_OK, subject, "last sector", "status ", status);
}

// What a device must refuse (§5.2.6.2).
void checkRefusals(Disk& disk, Subject subject, void* sector) {
  uint8_t status = disk.run(BLK_T_IN, disk.sectors(), sector, SECTOR);
  check(status == BLK_S_IOERR, subject, "past the end", "status ", status, ", wanted ",
        BLK_S_IOERR);
  status = disk.run(UNKNOWN_TYPE, 0, sector, SECTOR);
  check(status == BLK_S_UNSUPP, subject, "unknown type", "status ", status, ", wanted ",
        BLK_S_UNSUPP);
  if (disk.readOnly()) {
    status = disk.run(BLK_T_OUT, 0, sector, SECTOR);
    check(status == BLK_S_IOERR, subject, "read-only", "status ", status, ", wanted ", BLK_S_IOERR);
  }
}

}  // namespace

void checkDisk(const DriverContext& context, const PciFunction& function, unsigned number,
               bool mayScratch) {
  Subject subject{"blk", number};
  Disk disk;
  auto first = static_cast<uint8_t*>(allocate(SECTOR));
  auto other = static_cast<uint8_t*>(allocate(READ_SECTORS * SECTOR));
  bool started = first && other && disk.start(context, function, Completion::INTERRUPT, PIECES);
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{disk.virtioDevice().offered()})) {
    return;
  }
  if (!check(disk.sectors() > 0, subject, "capacity", disk.sectors(), " sectors",
             disk.readOnly() ? ", read-only" : "")) {
    return;
  }
  // First of all, while no interrupt of an earlier request can be taken for it.
  if (!checkInterrupt(disk, subject, first)) {
    return;
  }
  char id[BLK_ID_BYTES + 1] = {};
  uint8_t status = disk.run(BLK_T_GET_ID, 0, id, BLK_ID_BYTES);
  check(status == BLK_S_OK, subject, "id", "\"", static_cast<const char*>(id), "\"");
  checkReads(disk, subject, first, other);
  checkRefusals(disk, subject, other);
  bool marked = memcmp(first, SCRATCH_MARK, sizeof(SCRATCH_MARK) - 1) == 0;
  if ((marked || mayScratch) && !disk.readOnly()) {
    checkPattern(disk, subject);
  }
}

}  // namespace payload
