// How many pages of a memfd a bare loop gives back in a second: the limit of a balloon (balloon.py).
//
//   hole_loop fallocate|madvise PAGES STRIDE AT_ONCE
//
// Of PAGES pages, one each STRIDE bytes, neighbours are taken away AT_ONCE at a time.
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr uint64_t PAGE = 4096;

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: hole_loop fallocate|madvise PAGES STRIDE AT_ONCE\n");
    return 2;
  }
  bool byMapping = strcmp(argv[1], "madvise") == 0;
  uint64_t pages = strtoull(argv[2], nullptr, 10);
  uint64_t stride = strtoull(argv[3], nullptr, 10);
  uint64_t atOnce = stride == PAGE ? strtoull(argv[4], nullptr, 10) : 1;

  int file = memfd_create("ram", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, pages * stride) < 0) fail("memfd");
  void* view = mmap(nullptr, pages * stride, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (view == MAP_FAILED) fail("mmap");
  char* memory = static_cast<char*>(view);
  for (uint64_t i = 0; i < pages; i++)
    memory[i * stride] = 1;

  double begin = now();
  for (uint64_t i = 0; i < pages; i += atOnce) {
    uint64_t size = (i + atOnce < pages ? atOnce : pages - i) * PAGE;
    int result =
        byMapping ? madvise(memory + i * stride, size, MADV_REMOVE)
                  : fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * stride, size);
    if (result < 0) fail(argv[1]);
  }
  printf("%.0f\n", pages / (now() - begin));
}
