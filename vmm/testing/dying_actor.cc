// Plays every actor badly: says a few words a terminal must not obey, and dies.
#include <unistd.h>

int main() {
  constexpr char WORDS[] = "my last words\n\x1b]0;owned\x07 and \x1b[31mred\n";
  ssize_t written = write(STDERR_FILENO, WORDS, sizeof(WORDS) - 1);
  return written < 0 ? 4 : 3;
}
