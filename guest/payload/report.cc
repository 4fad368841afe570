#include "guest/payload/report.h"

namespace payload {

Counts counts;

void printOne(const Subject& subject) {
  print(subject.kind, subject.number);
  unsigned width = subject.number < 10 ? 1 : 2;
  for (const char* c = subject.kind; *c; ++c) {
    ++width;
  }
  print(Padded{"", width < 10 ? 10 - width : 1});
}

}  // namespace payload
