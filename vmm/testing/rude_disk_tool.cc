// A disk tool that somebody has taken over: what it does, the first byte of the image says.
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>

namespace {

constexpr int REPORT = 3;
constexpr int DISK = 17;

void say(const void* bytes, size_t count) {
  if (write(REPORT, bytes, count) < 0) _exit(4);
}

// A message of one segment whose root is of the size a report has, with what `kind` says in it.
void report(uint16_t kind) {
  struct {
    uint32_t segments = 0;
    uint32_t words = 4;
    uint16_t root[4] = {0, 0, 2, 1};  // two words of data, a pointer
    uint64_t data[2] = {};
    uint64_t pointer = 0;
  } message;
  // The discriminant stands where the schema has it: with the union's first member of 64 bits in
  // front.
  for (int at = 0; at < 8; at++)
    reinterpret_cast<uint16_t*>(message.data)[at] = kind;
  say(&message, sizeof(message));
}

}  // namespace

int main() {
  char wish = 0;
  iovec room{&wish, 1};
  if (preadv2(DISK, &room, 1, 0, 0) != 1) return 5;
  switch (wish) {
    case 'h':
      for (volatile uint64_t turns = 0;; turns = turns + 1) {
      }
    case 'g':
      for (int i = 0; i < 100; i++)
        say("\xff\xff\xff\xff garbage \xff\xff\xff\xff", 17);
      return 0;
    case 'k':
      report(4);  // it was not asked to grow anything
      return 0;
    case 'q':
      return 0;
    case 'f':
      fork();
      return 0;
    default:
      return 6;
  }
}
