#include "devices/blk/fuzz_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <liburing.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "devices/virtio/guest_watch.h"
#include "tests/fuzz/allocations.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/watch.h"

namespace troupe::blk::fuzzing {
namespace {

using fuzz::finding;

int makeFile() {
  int fd;
  KJ_SYSCALL(fd = memfd_create("disk", MFD_CLOEXEC));
  KJ_SYSCALL(ftruncate(fd, DISK_BYTES));
  return fd;
}

// Null for an fd that is none of ours.
FakeFile* fileOf(int fd) {
  if (fd == fileInMemory() || fd == fileInCache() || fd == fileDirect()) return &kernel().disk;
  return fd == volatileMemory() ? &kernel().memory : nullptr;
}

}  // namespace

FakeKernel& kernel() {
  static FakeKernel it;
  return it;
}

int fileInMemory() {
  static const int fd = makeFile();
  return fd;
}
int fileInCache() {
  static const int fd = makeFile();
  return fd;
}
int fileDirect() {
  static const int fd = makeFile();
  return fd;
}
int volatileMemory() {
  static const int fd = makeFile();
  return fd;
}

kj::byte firstContent(uint64_t offset) {
  return kj::byte(offset / 512 * 31 + offset % 512 * 7 + 1);
}

FakeFile::FakeFile(bool isDisk) : isDisk(isDisk) {
  for (uint64_t i = 0; i < DISK_BYTES; i++)
    first[i] = isDisk ? firstContent(i) : 0;
  memcpy(bytes, first, sizeof(bytes));
}

void FakeFile::touch(uint64_t offset, uint64_t size) {
  dirtyBegin = std::min(dirtyBegin, offset);
  dirtyEnd = std::max(dirtyEnd, offset + size);
}

void FakeFile::reset() {
  if (dirtyBegin < dirtyEnd) memcpy(bytes + dirtyBegin, first + dirtyBegin, dirtyEnd - dirtyBegin);
  dirtyBegin = DISK_BYTES;
  dirtyEnd = 0;
  if (!isDisk) memset(held, 0, sizeof(held));
}

size_t FakeFile::pagesHeld() const {
  return std::count(held, held + DISK_BYTES / PAGE, true);
}

uint64_t FakeFile::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t most) {
  uint64_t done = 0;
  for (const iovec& piece : pieces) {
    size_t part = std::min<uint64_t>(piece.iov_len, most - done);
    auto to = static_cast<kj::byte*>(piece.iov_base);
    virtio::watch::write(to, part);
    memcpy(to, bytes + offset + done, part);
    done += part;
  }
  return done;
}

uint64_t FakeFile::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t most) {
  uint64_t done = 0;
  for (const iovec& piece : pieces) {
    size_t part = std::min<uint64_t>(piece.iov_len, most - done);
    if (part == 0) continue;
    auto from = static_cast<kj::byte*>(piece.iov_base);
    virtio::watch::read(from, part);
    memcpy(bytes + offset + done, from, part);
    done += part;
  }
  if (done == 0) return 0;
  touch(offset, done);
  for (uint64_t page = offset / PAGE; page <= (offset + done - 1) / PAGE; page++)
    held[page] = true;
  return done;
}

void FakeFile::clear(uint64_t offset, uint64_t size) {
  if (size == 0) return;
  touch(offset, size);
  memset(bytes + offset, 0, size);
  for (uint64_t page = (offset + PAGE - 1) / PAGE; page < (offset + size) / PAGE; page++)
    held[page] = false;
}

void FakeKernel::setMood(Mood newMood, uint32_t calls, uint32_t newMost) {
  mood = newMood;
  moodCalls = calls;
  most = newMost;
}

FakeKernel::Mood FakeKernel::takeMood() {
  if (moodCalls == 0) return Mood::WELL;
  --moodCalls;
  isOdd |= mood == Mood::UNSUPPORTED;
  moodCount += mood != Mood::WELL;
  return mood;
}

void FakeKernel::reset() {
  background.clear();
  setMood(Mood::WELL, 0, 0);
  isPrompt = true;
  isOdd = false;
  disk.reset();
  memory.reset();
}

namespace {

// Whatever the disk is asked for lies on it.
void requireInside(uint64_t offset, uint64_t bytes) {
  if (offset > DISK_BYTES || bytes > DISK_BYTES - offset) {
    finding(
        kj::str("a request for ", bytes, " bytes at ", offset, " reached a disk of ", DISK_BYTES));
  }
}

uint64_t sizeOf(kj::ArrayPtr<const iovec> pieces) {
  uint64_t size = 0;
  for (const iovec& piece : pieces)
    size += piece.iov_len;
  return size;
}

// A failure that this mood means; 0 for none.
int errorOf(FakeKernel::Mood mood, bool mayWait) {
  switch (mood) {
    case FakeKernel::Mood::IO_ERROR:
      return -EIO;
    case FakeKernel::Mood::NO_SPACE:
      return -ENOSPC;
    case FakeKernel::Mood::WOULD_WAIT:
      return mayWait ? 0 : -EAGAIN;
    case FakeKernel::Mood::UNSUPPORTED:
      return mayWait ? 0 : -EOPNOTSUPP;
    default:
      return 0;
  }
}

}  // namespace

int64_t FakeKernel::read(FakeFile& file, kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                         bool mayWait) {
  uint64_t left = sizeOf(pieces);
  // What goes on behind a read that was short, by whole blocks, may pass the end.
  if (offset % 512 != 0 && offset < DISK_BYTES) left = std::min(left, DISK_BYTES - offset);
  requireInside(offset, left);
  Mood now = takeMood();
  if (int error = errorOf(now, mayWait)) return error;
  if (now == Mood::END) return 0;
  if (now == Mood::SHORT) left = std::min<uint64_t>(left, most);
  return file.read(pieces, offset, left);
}

int64_t FakeKernel::write(FakeFile& file, kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                          bool mayWait) {
  uint64_t left = sizeOf(pieces);
  requireInside(offset, left);
  if (file.isReadOnly) finding("a disk that may not be written is written");
  Mood now = takeMood();
  if (int error = errorOf(now, mayWait)) return error;
  if (now == Mood::END) return 0;
  if (now == Mood::SHORT) {
    left = std::min<uint64_t>(left, most);
    // A write through the bounce buffer: what is left of it comes out of the guest once more.
    fuzz::hostTookLess();
  }
  return file.write(pieces, offset, left);
}

int64_t FakeKernel::allocate(FakeFile& file, int mode, uint64_t offset, uint64_t bytes) {
  if (file.isDisk) requireInside(offset, bytes);
  if (file.isReadOnly) finding("a disk that may not be written is cut");
  if (!(mode & FALLOC_FL_KEEP_SIZE)) finding("the size of a disk is changed");
  if (int error = errorOf(takeMood(), false)) return error;
  file.clear(offset, std::min(bytes, DISK_BYTES - std::min(offset, DISK_BYTES)));
  return 0;
}

int64_t FakeKernel::sync() {
  return errorOf(takeMood(), true);
}

void FakeKernel::submit(struct io_uring& ring, const io_uring_sqe& entry) {
  fuzz::NotCounted ours;
  if (!(entry.flags & IOSQE_FIXED_FILE) || entry.fd != 0) finding("not the disk's own file");
  Request request{&ring, entry.opcode, {}, entry.off, entry.len, 0, entry.user_data};
  if (entry.opcode == IORING_OP_READV || entry.opcode == IORING_OP_WRITEV) {
    auto pieces = reinterpret_cast<const iovec*>(entry.addr);
    request.pieces.assign(pieces, pieces + entry.len);
  } else if (entry.opcode == IORING_OP_FALLOCATE) {
    request.bytes = entry.addr;
    request.mode = entry.len;
  }
  background.push_back(std::move(request));
  if (isPrompt) complete(background.size(), 0);
}

int64_t FakeKernel::perform(const Request& request) {
  auto pieces = kj::arrayPtr(request.pieces.data(), request.pieces.size());
  switch (request.opcode) {
    case IORING_OP_READV:
      return read(disk, pieces, request.offset, true);
    case IORING_OP_WRITEV:
      return write(disk, pieces, request.offset, true);
    case IORING_OP_FSYNC:
      return sync();
    case IORING_OP_FALLOCATE:
      return allocate(disk, request.mode, request.offset, request.bytes);
    default:
      finding(kj::str("the ring was asked for operation ", request.opcode));
  }
}

void FakeKernel::complete(size_t count, size_t first) {
  fuzz::NotCounted ours;
  for (; count > 0 && !background.empty(); count--) {
    size_t i = first % background.size();
    Request request = std::move(background[i]);
    background.erase(background.begin() + i);
    auto& queue = request.ring->cq;
    auto& completion = queue.cqes[*queue.ktail & queue.ring_mask];
    completion.user_data = request.token;
    completion.res = perform(request);
    ++*queue.ktail;
    if (*queue.ktail - *queue.khead > queue.ring_entries) finding("completions were lost");
  }
}

// An io_uring's memory.
struct FakeRing {
  unsigned submissionHead = 0, submissionTail = 0, submissionFlags = 0;
  unsigned completionHead = 0, completionTail = 0, completionFlags = 0;
  std::vector<io_uring_sqe> submissions;
  std::vector<io_uring_cqe> completions;
};

namespace {

int submitAll(struct io_uring* ring) {
  int count = 0;
  for (; *ring->sq.khead != ring->sq.sqe_tail; ++*ring->sq.khead, ++count)
    kernel().submit(*ring, ring->sq.sqes[*ring->sq.khead & ring->sq.ring_mask]);
  return count;
}

}  // namespace
}  // namespace troupe::blk::fuzzing

using namespace troupe::blk::fuzzing;

extern "C" {

// liburing.

int io_uring_queue_init_params(unsigned entries, struct io_uring* ring, struct io_uring_params* p) {
  troupe::fuzz::NotCounted ours;
  memset(ring, 0, sizeof(*ring));
  auto memory = new FakeRing;
  memory->submissions.resize(entries);
  memory->completions.resize(p->cq_entries);
  ring->sq.khead = &memory->submissionHead;
  ring->sq.ktail = &memory->submissionTail;
  ring->sq.kflags = &memory->submissionFlags;
  ring->sq.sqes = memory->submissions.data();
  ring->sq.ring_mask = entries - 1;
  ring->sq.ring_entries = entries;
  ring->sq.ring_ptr = memory;
  ring->cq.khead = &memory->completionHead;
  ring->cq.ktail = &memory->completionTail;
  ring->cq.kflags = &memory->completionFlags;
  ring->cq.cqes = memory->completions.data();
  ring->cq.ring_mask = p->cq_entries - 1;
  ring->cq.ring_entries = p->cq_entries;
  ring->features = IORING_FEAT_EXT_ARG;
  ring->ring_fd = -1;
  return 0;
}
void io_uring_queue_exit(struct io_uring* ring) {
  delete static_cast<FakeRing*>(ring->sq.ring_ptr);
}
int io_uring_register_files(struct io_uring*, const int* files, unsigned) {
  return fileOf(files[0]) == &kernel().disk ? 0 : -EBADF;
}
int io_uring_register_eventfd(struct io_uring*, int) {
  return 0;
}
int io_uring_register_iowq_max_workers(struct io_uring*, unsigned*) {
  return 0;
}
int io_uring_register_restrictions(struct io_uring*, struct io_uring_restriction*, unsigned) {
  return 0;
}
int io_uring_register_ring_fd(struct io_uring*) {
  return 1;
}
int io_uring_enable_rings(struct io_uring*) {
  return 0;
}
int io_uring_submit(struct io_uring* ring) {
  return submitAll(ring);
}
int io_uring_submit_and_get_events(struct io_uring* ring) {
  return submitAll(ring);
}
int io_uring_get_events(struct io_uring*) {
  return 0;
}
int __io_uring_get_cqe(struct io_uring*, struct io_uring_cqe** entry, unsigned, unsigned,
                       sigset_t*) {
  *entry = nullptr;
  return -EAGAIN;
}

// The C library's, by --wrap.

long __real_syscall(long number, ...);
// Takes six arguments, however many there are.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a)
    argument = va_arg(list, long);
  va_end(list);
  bool isRead = number == SYS_preadv2;
  FakeFile* file = isRead || number == SYS_pwritev2 ? fileOf(a[0]) : nullptr;
  if (file == nullptr) {
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
  auto pieces = kj::arrayPtr(reinterpret_cast<const iovec*>(a[1]), size_t(a[2]));
  bool mayWait = !(a[5] & RWF_NOWAIT);
  int64_t result = isRead ? kernel().read(*file, pieces, a[3], mayWait)
                          : kernel().write(*file, pieces, a[3], mayWait);
  if (result >= 0) return result;
  errno = -result;
  return -1;
}

int __wrap_fdatasync(int) {
  int64_t result = kernel().sync();
  if (result == 0) return 0;
  errno = -result;
  return -1;
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes) {
  FakeFile* file = fileOf(fd);
  if (file == nullptr) troupe::fuzz::finding("an fd that is no disk's is cut");
  int64_t result = kernel().allocate(*file, mode, offset, bytes);
  if (result == 0) return 0;
  errno = -result;
  return -1;
}

// A disk's kind is told by these two.
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, long argument) {
  int result = __real_fcntl(fd, command, argument);
  return command == F_GETFL && fd == fileDirect() ? result | O_DIRECT : result;
}
int __real_fstatfs(int fd, struct statfs* system);
int __wrap_fstatfs(int fd, struct statfs* system) {
  int result = __real_fstatfs(fd, system);
  if (fd != fileInMemory()) system->f_type = EXT4_SUPER_MAGIC;
  return result;
}
}
