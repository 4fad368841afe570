#pragma once

#include "guest/payload/serial.h"

// The table of what was checked: one row each, and the counts at the end.
namespace payload {

struct Counts {
  unsigned passed;
  unsigned failed;
};
extern Counts counts;

// What a row is about: a kind of device and its number among its kind.
struct Subject {
  const char* kind;
  unsigned number;
};
// As the column of the table: "blk0     ".
void printOne(const Subject& subject);

// Prints `ok` or `FAIL`, the subject, the name of the check and what was seen. Returns `passed`.
template <typename... Detail>
bool check(bool passed, Subject subject, const char* name, const Detail&... detail) {
  ++(passed ? counts.passed : counts.failed);
  print(passed ? "ok    " : "FAIL  ", subject, Padded{name, 14});
  print(detail..., "\n");
  return passed;
}

}  // namespace payload
