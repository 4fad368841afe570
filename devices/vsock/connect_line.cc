#include "devices/vsock/connect_line.h"

#include "devices/vsock/wire.h"

namespace troupe::vsock {

namespace {

constexpr char WORD[] = "CONNECT ";
constexpr size_t WORD_LENGTH = sizeof(WORD) - 1;
constexpr size_t MOST_DIGITS = 10;

char upper(char c) {
  return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
}

}  // namespace

kj::Maybe<uint32_t> parseConnectLine(kj::ArrayPtr<const char> line) {
  if (line.size() <= WORD_LENGTH || line.size() > WORD_LENGTH + MOST_DIGITS) return nullptr;
  for (size_t i = 0; i < WORD_LENGTH; i++) {
    if (upper(line[i]) != WORD[i]) return nullptr;
  }
  uint64_t port = 0;
  for (char c : line.slice(WORD_LENGTH, line.size())) {
    if (c < '0' || c > '9') return nullptr;
    port = port * 10 + uint64_t(c - '0');
  }
  if (port >= PORT_ANY) return nullptr;
  return uint32_t(port);
}

}  // namespace troupe::vsock
