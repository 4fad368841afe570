#pragma once

#include <kj/common.h>
#include <kj/exception.h>
#include <kj/string.h>

#include <cstring>
#include <vector>

#include "tests/fuzz/op.h"

// What the fuzz targets of messages share: operations that fill one, and spoil its bytes.
namespace troupe::sandbox::fuzzing {

// Takes what is only read to see that it can be.
inline volatile uint64_t looked;

// A name: the one that fits, or another.
inline kj::StringPtr word(uint32_t choice, kj::StringPtr usual) {
  static const auto LONG = kj::str(kj::repeat('x', 65));
  static const auto VERY_LONG = kj::str(kj::repeat('y', 5000));
  static const kj::StringPtr WORDS[] = {
      "start"_kj, "ready"_kj, "run"_kj, "thread:q"_kj, "rpc"_kj,     "log"_kj, "ram"_kj, "file"_kj,
      "memfd"_kj, ""_kj,      "A"_kj,   "\xff"_kj,     "thread:"_kj, "a b"_kj, LONG,     VERY_LONG};
  return choice % 32 < 16 ? usual : WORDS[choice % 16];
}

class Operations {
 public:
  // `kinds`: an operation whose kind is that or more spoils bytes.
  Operations(kj::ArrayPtr<const kj::byte> input, uint8_t kinds)
      : all(fuzz::decode(input)), kinds(kinds) {}

  std::vector<fuzz::Op> of(uint8_t kind) const {
    std::vector<fuzz::Op> result;
    for (const fuzz::Op& op : all)
      if (op.kind % (kinds + 1) == kind) result.push_back(op);
    return result;
  }
  // By the last one of its kind, if there is one.
  kj::StringPtr text(uint8_t kind, kj::StringPtr usual) const {
    auto found = of(kind);
    return found.empty() ? usual : word(found.back().b, usual);
  }
  uint32_t number(uint8_t kind, uint32_t usual) const {
    auto found = of(kind);
    return found.empty() ? usual : found.back().c;
  }
  // In order, those whose kind is `from` to `to`.
  std::vector<fuzz::Op> between(uint8_t from, uint8_t to) const {
    std::vector<fuzz::Op> result;
    for (const fuzz::Op& op : all) {
      uint8_t kind = op.kind % (kinds + 1);
      if (kind >= from && kind <= to) result.push_back(op);
    }
    return result;
  }

  void poke(kj::ArrayPtr<kj::byte> bytes) const {
    for (const fuzz::Op& op : of(kinds)) {
      size_t width = size_t(1) << op.a % 4;
      if (bytes.size() < width) return;
      memcpy(bytes.begin() + op.c % (bytes.size() - width + 1), &op.d, width);
    }
  }

 private:
  std::vector<fuzz::Op> all;
  const uint8_t kinds;
};

// A refusal is an exception, thousands of times a second here.
class Quiet final: public kj::ExceptionCallback {
  void logMessage(kj::LogSeverity, const char*, int, int, kj::String&&) override {}
  StackTraceMode stackTraceMode() override { return StackTraceMode::NONE; }
};

}  // namespace troupe::sandbox::fuzzing
