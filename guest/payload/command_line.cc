#include "guest/payload/command_line.h"

namespace payload {
namespace {

// One word, `name` or `name=value`, borrowed from the line.
struct Word {
  const char* text;
  unsigned length;

  bool is(const char* name) const {
    unsigned i = 0;
    for (; i < length && name[i] && text[i] == name[i]; ++i) {
    }
    return i == length && !name[i];
  }

  // Whether this is `name=...`; then `value` is what follows.
  bool assigns(const char* name, Word& value) const {
    unsigned i = 0;
    for (; i < length && name[i] && text[i] == name[i]; ++i) {
    }
    if (name[i] || i == length || text[i] != '=') {
      return false;
    }
    value = {text + i + 1, length - i - 1};
    return true;
  }

  bool number(unsigned& result) const {
    uint64_t value = 0;
    for (unsigned i = 0; i < length; ++i) {
      if (text[i] < '0' || text[i] > '9') {
        return false;
      }
      value = value * 10 + (text[i] - '0');
      if (value > 0x7fffffff) {
        return false;
      }
    }
    result = value;
    return length > 0;
  }

  bool address(uint64_t& result) const {
    uint64_t value = 0;
    for (unsigned i = 0; i < length; ++i) {
      char c = text[i];
      unsigned digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
      if (digit > 15 || i >= 16) {
        return false;
      }
      value = value << 4 | digit;
    }
    result = value;
    return length > 0;
  }

  bool flag(bool& result) const {
    result = is("1");
    return is("0") || is("1");
  }
};

template <typename Choice>
struct Named {
  const char* name;
  Choice choice;
};

template <typename Choice, unsigned N>
bool choose(Word value, const Named<Choice> (&choices)[N], Choice& result) {
  for (const Named<Choice>& candidate : choices) {
    if (value.is(candidate.name)) {
      result = candidate.choice;
      return true;
    }
  }
  return false;
}

constexpr Named<End> ENDS[] = {{"poweroff", End::POWEROFF}, {"verdict", End::VERDICT},
                               {"reset", End::RESET},       {"crash", End::CRASH},
                               {"halt", End::HALT},         {"spin", End::SPIN}};
constexpr Named<Keys> KEYS[] = {{"echo", Keys::SERIAL}, {"console", Keys::CONSOLE}};
constexpr Named<bool> HEAPS[] = {{"first", false}, {"last", true}};
constexpr Named<bool> MODES[] = {{"poll", false}, {"irq", true}};
constexpr Named<Bench> BENCHES[] = {{"blk", Bench::BLK},
                                    {"durability", Bench::DURABILITY},
                                    {"net", Bench::NET},
                                    {"balloon", Bench::BALLOON}};
constexpr Named<NetOp> OPS[] = {
    {"send", NetOp::SEND}, {"receive", NetOp::RECEIVE}, {"trip", NetOp::TRIP}};

// False when the word is known and its value is not.
bool apply(Word word, Options& options) {
  if (word.is("hello")) {
    options.hello = true;
  } else if (word.is("idle")) {
    options.idle = true;
  } else if (word.is("intx")) {
    options.intx = true;
  } else if (word.is("scratch")) {
    options.scratch = EVERY_DISK;
  }
  Word value;
  BenchOptions& bench = options.bench;
  if (word.assigns("end", value)) {
    return choose(value, ENDS, options.end);
  }
  if (word.assigns("keys", value)) {
    return choose(value, KEYS, options.keys);
  }
  if (word.assigns("eventidx", value)) {
    return value.flag(options.eventIndex);
  }
  if (word.assigns("indirect", value)) {
    return value.flag(options.indirect);
  }
  if (word.assigns("heap", value)) {
    return choose(value, HEAPS, options.heapLast);
  }
  if (word.assigns("scratch", value)) {
    return value.number(options.scratch);
  }
  if (word.assigns("window", value)) {
    return value.address(options.window) && options.window % 4096 == 0;
  }
  if (word.assigns("bench", value)) {
    return choose(value, BENCHES, bench.kind);
  }
  if (word.assigns("mode", value)) {
    return choose(value, MODES, bench.interrupts);
  }
  if (word.assigns("write", value)) {
    return value.flag(bench.write);
  }
  if (word.assigns("disk", value)) {
    return value.number(bench.disk);
  }
  if (word.assigns("op", value)) {
    return choose(value, OPS, bench.op);
  }
  if (word.assigns("net", value)) {
    return value.number(bench.net);
  }
  if (word.assigns("frame", value)) {
    return value.number(bench.frame) && bench.frame >= 60 && bench.frame <= 1514;
  }
  if (word.assigns("seed", value)) {
    return value.number(bench.seed);
  }
  if (word.assigns("warmup", value)) {
    return value.number(bench.warmup);
  }
  if (word.assigns("depth", value)) {
    return value.number(bench.depth) && bench.depth > 0;
  }
  if (word.assigns("queues", value)) {
    return value.number(bench.queues) && bench.queues > 0;
  }
  if (word.assigns("count", value)) {
    return value.number(bench.count) && bench.count > 0;
  }
  if (word.assigns("rounds", value)) {
    return value.number(bench.rounds) && bench.rounds > 0;
  }
  if (word.assigns("size", value)) {
    return value.number(bench.size) && bench.size > 0 && bench.size % 512 == 0;
  }
  return true;
}

}  // namespace

Options parseCommandLine(const char* line, void (*complaint)(const char* word, unsigned length)) {
  Options options;
  while (*line) {
    if (*line == ' ' || *line == '\t' || *line == '\n') {
      ++line;
      continue;
    }
    Word word{line, 0};
    while (*line && *line != ' ' && *line != '\t' && *line != '\n') {
      ++line;
      ++word.length;
    }
    if (!apply(word, options)) {
      complaint(word.text, word.length);
    }
  }
  return options;
}

}  // namespace payload
