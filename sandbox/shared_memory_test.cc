#include "sandbox/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/exception.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

namespace troupe::sandbox {
namespace {

constexpr uint64_t MIB = 1 << 20;
constexpr size_t PAGE = 4096;

// The error of mapping the first page so, 0 when it can be.
int errorOfMapping(int fd, int protection, int flags) {
  void* page = mmap(nullptr, PAGE, protection, flags, fd, 0);
  if (page == MAP_FAILED) return errno;
  munmap(page, PAGE);
  return 0;
}

// The first page, mapped for reading from the read-only fd.
class ReadOnlyPage {
 public:
  explicit ReadOnlyPage(const SharedMemory& memory)
      : address(mmap(nullptr, PAGE, PROT_READ, MAP_SHARED, memory.readOnly, 0)) {
    EXPECT_NE(MAP_FAILED, address);
  }
  ~ReadOnlyPage() { munmap(address, PAGE); }
  void* address;
};

TEST(SharedMemory, KeepsItsSizeAndItsSeals) {
  SharedMemory memory = makeSharedMemory("test", 2 * MIB);
  for (int fd : {memory.writable.get(), memory.readOnly.get()}) {
    EXPECT_EQ(off_t(2 * MIB), lseek(fd, 0, SEEK_END));
    EXPECT_LT(ftruncate(fd, 4 * MIB), 0);
    EXPECT_LT(ftruncate(fd, 0), 0);
    EXPECT_LT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  }
}

TEST(SharedMemory, TakesNoMemoryUntilItIsTouched) {
  SharedMemory memory = makeSharedMemory("test", 64 * MIB);
  struct stat info;
  ASSERT_EQ(0, fstat(memory.writable, &info));
  EXPECT_EQ(0, info.st_blocks);
}

TEST(SharedMemory, BothFdsAreTheSameMemory) {
  SharedMemory memory = makeSharedMemory("test", MIB);
  ASSERT_EQ(3, pwrite(memory.writable, "abc", 3, PAGE - 1));
  char text[3];
  ASSERT_EQ(3, pread(memory.readOnly, text, 3, PAGE - 1));
  EXPECT_EQ(0, memcmp(text, "abc", 3));
}

TEST(SharedMemory, NoSharedMappingOfTheReadOnlyFdIsWritable) {
  SharedMemory memory = makeSharedMemory("test", MIB);
  EXPECT_EQ(EACCES, errorOfMapping(memory.readOnly, PROT_READ | PROT_WRITE, MAP_SHARED));
  EXPECT_EQ(EACCES, errorOfMapping(memory.readOnly, PROT_WRITE, MAP_SHARED));
  EXPECT_EQ(EACCES, errorOfMapping(memory.readOnly, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE));
  EXPECT_EQ(0, errorOfMapping(memory.readOnly, PROT_READ, MAP_SHARED));
  EXPECT_EQ(0, errorOfMapping(memory.writable, PROT_READ | PROT_WRITE, MAP_SHARED));
}

TEST(SharedMemory, NoReadOnlyMappingBecomesWritable) {
  SharedMemory memory = makeSharedMemory("test", MIB);
  ReadOnlyPage page(memory);
  EXPECT_LT(mprotect(page.address, PAGE, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(EACCES, errno);
  // A moved and larger mapping is of the same fd.
  void* moved = mremap(page.address, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
  ASSERT_NE(MAP_FAILED, moved);
  EXPECT_LT(mprotect(moved, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
  page.address = moved;
  munmap(static_cast<char*>(moved) + PAGE, PAGE);
}

TEST(SharedMemory, NoCallWritesThroughTheReadOnlyFd) {
  SharedMemory memory = makeSharedMemory("test", MIB);
  EXPECT_LT(pwrite(memory.readOnly, "x", 1, 0), 0);
  EXPECT_LT(fallocate(memory.readOnly, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
  EXPECT_EQ(0, fcntl(memory.readOnly, F_SETFL, O_RDWR));  // which cannot change the access
  EXPECT_EQ(O_RDONLY, fcntl(memory.readOnly, F_GETFL) & O_ACCMODE);
  // Nor does the kernel write into its mapping for somebody.
  ReadOnlyPage page(memory);
  EXPECT_LT(pread(memory.writable, page.address, 1, 0), 0);
  EXPECT_EQ(EFAULT, errno);
  char byte = 'x';
  iovec from = {&byte, 1}, to = {page.address, 1};
  EXPECT_LT(process_vm_writev(getpid(), &from, 1, &to, 1, 0), 0);
}

TEST(SharedMemory, AHoleCannotBeDroppedThroughAReadOnlyMapping) {
  SharedMemory memory = makeSharedMemory("test", MIB);
  ASSERT_EQ(1, pwrite(memory.writable, "x", 1, 0));
  ReadOnlyPage page(memory);
  EXPECT_LT(madvise(page.address, PAGE, MADV_REMOVE), 0);
  EXPECT_EQ('x', *static_cast<volatile char*>(page.address));
}

TEST(SharedMemory, RefusalNamesTheStep) {
  try {
    makeSharedMemory("test", uint64_t(1) << 63);
    FAIL();
  } catch (const kj::Exception& exception) {
    EXPECT_TRUE(exception.getDescription().startsWith(
        "TRP-host-102: the kernel refuses guest memory (ftruncate): "))
        << exception.getDescription().cStr();
  }
}

}  // namespace
}  // namespace troupe::sandbox
