// The one mount is a tmpfs at the root, mounted and made read-only, and nothing is in it.
#include <errno.h>
#include <string.h>

#include "sandbox/attest_subject.h"
#include "sandbox/errno_text.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

constexpr kj::StringPtr ROOT = "root"_kj;
constexpr kj::StringPtr MOUNTS = "mounts"_kj;

// "36 35 0:30 / / ro,nosuid,… - tmpfs root ro,…"
void checkRootMount(Subject& subject, kj::StringPtr line) {
  const char* separator = strstr(line.cStr(), " - ");
  bool tmpfs = separator != nullptr && strncmp(separator, " - tmpfs ", 9) == 0;
  if (!tmpfs || strstr(line.cStr(), " / / ") == nullptr) {
    subject.differ(MOUNTS, "its root is no tmpfs: ", line.slice(0, line.size() - 1));
    return;
  }
  const char* options = strstr(line.cStr(), " / / ") + 5;
  if (strncmp(options, "ro,", 3) != 0 && strncmp(options, "ro ", 3) != 0) {
    subject.differ(MOUNTS, "its root is writable");
  }
}

size_t linesOf(kj::StringPtr text) {
  size_t lines = 0;
  for (char c : text)
    lines += c == '\n';
  return lines;
}

}  // namespace

void attestRoot(Subject& subject) {
  KJ_IF_MAYBE (names, listFolder(subject.folder, "root")) {
    subject.seen(ROOT, names->size() == 0 ? kj::str("empty") : kj::str(names->size(), " entries"));
    if (names->size() > 0) {
      subject.differ(ROOT, "its root is not empty: it has ", names->size(), " entries, \"",
                     (*names)[0], "\" among them");
    }
  } else {
    subject.differ(ROOT, "its root cannot be read: ", errnoText(errno));
  }
  KJ_IF_MAYBE (mounts, readAll(subject.folder, "mountinfo")) {
    size_t lines = linesOf(*mounts);
    if (lines != 1) {
      subject.seen(MOUNTS, lines);
      subject.differ(MOUNTS, "it sees ", lines, " mounts; a jailed actor has one, its empty root");
    } else {
      subject.seen(MOUNTS, mounts->slice(0, mounts->size() - 1));
      checkRootMount(subject, *mounts);
    }
  } else {
    subject.differ(MOUNTS, "its mounts cannot be read: ", errnoText(errno));
  }
}

}  // namespace troupe::sandbox
