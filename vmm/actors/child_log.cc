#include "vmm/actors/child_log.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <unistd.h>

#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_LINE = 400;
constexpr size_t KEPT_LINES = 8;
constexpr uint32_t LINES_PER_WINDOW =
    40;  // a guest that provokes messages cannot fill the user's disk
constexpr kj::Duration WINDOW = 10 * kj::SECONDS;

bool saysInJson = false;  // of the whole process, as standard error is

}  // namespace

void sayInJson() {
  saysInJson = true;
}

void printError(kj::StringPtr text) {
  if (!saysInJson) return printErrorAsIs(text);
  constexpr kj::StringPtr SPEAKER = "troupe: "_kj;
  if (text.startsWith(SPEAKER)) text = text.slice(SPEAKER.size());
  size_t end = text.size() - (text.endsWith("\n") ? 1 : 0);
  auto message = kj::heapString(text.slice(0, end));
  printErrorAsIs(kj::str(JsonLine().text("message", message).render(), "\n"));
}

void printErrorAsIs(kj::StringPtr text) {
  constexpr int PATIENCE_MS = 1000;
  while (text.size() > 0) {
    ssize_t written = ::write(STDERR_FILENO, text.begin(), text.size());
    if (written > 0) {
      text = text.slice(written);
    } else if (written < 0 && errno == EAGAIN) {
      pollfd waiting = {STDERR_FILENO, POLLOUT, 0};
      if (poll(&waiting, 1, PATIENCE_MS) <= 0) return;
    } else if (written == 0 || errno != EINTR) {
      return;
    }
  }
}

ChildLog::ChildLog(kj::Own<kj::AsyncInputStream> pipeParam, kj::StringPtr actor, kj::Timer& timer,
                   kj::StringPtr noise)
    : pipe(kj::mv(pipeParam)),
      actor(kj::heapString(actor)),
      timer(timer),
      noise(kj::heapString(noise)),
      windowStart(timer.now()),
      ended(read().catch_([](kj::Exception&&) {}).fork()) {}

void ChildLog::live() {
  isLive = true;
  for (auto& text : lastWords())
    printError(kj::str("troupe-", actor, ": ", text, "\n"));
}

kj::Vector<kj::String> ChildLog::lastWords() {
  kj::Vector<kj::String> words;
  for (auto& text : kept)
    words.add(kj::mv(text));
  kept.clear();
  return words;
}

kj::Promise<void> ChildLog::read() {
  return pipe->tryRead(buffer, 1, sizeof(buffer)).then([this](size_t got) -> kj::Promise<void> {
    if (got == 0) {
      if (line.size() > 0) finishLine();
      return kj::READY_NOW;
    }
    take(kj::arrayPtr(buffer, got));
    return read();
  });
}

void ChildLog::take(kj::ArrayPtr<const char> bytes) {
  for (char c : bytes) {
    if (c == '\n') {
      finishLine();
    } else if (line.size() < LONGEST_LINE) {
      line.add(c);
    }
  }
}

void ChildLog::finishLine() {
  auto text = escape(line, LONGEST_LINE);
  line.clear();
  if (text.size() == 0 || isMuted || (noise.size() > 0 && text.startsWith(noise))) return;
  if (!isLive) {
    if (kept.size() == KEPT_LINES) kept.pop_front();
    kept.push_back(kj::mv(text));
  } else if (mayPrint()) {
    printError(kj::str("troupe-", actor, ": ", text, "\n"));
  }
}

bool ChildLog::mayPrint() {
  if (timer.now() - windowStart > WINDOW) {
    windowStart = timer.now();
    printedInWindow = 0;
    if (suppressed > 0) {
      printError(kj::str("troupe-", actor, ": (", suppressed, " lines left out)\n"));
      suppressed = 0;
    }
  }
  if (printedInWindow < LINES_PER_WINDOW) {
    printedInWindow++;
    return true;
  }
  suppressed++;
  return false;
}

}  // namespace troupe
