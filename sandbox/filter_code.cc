#include "sandbox/filter_code.h"

#include <linux/audit.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <cstddef>
#include <tuple>

namespace troupe::sandbox {
namespace {

using Code = std::vector<sock_filter>;

constexpr uint32_t X32_BIT = 0x40000000;

// Where a jump goes when a test fails; guard() puts the distance there.
constexpr uint8_t FAIL = 255;

constexpr size_t LONGEST_JUMP = 254;

sock_filter load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}

sock_filter keepBits(uint32_t mask) {
  return BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask);
}

sock_filter test(uint16_t comparison, uint32_t value, uint8_t ifSo, uint8_t ifNot) {
  return BPF_JUMP(static_cast<uint16_t>(BPF_JMP | BPF_K | comparison), value, ifSo, ifNot);
}

sock_filter skip(size_t count) {
  return BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(count));
}

sock_filter answer(uint32_t action) {
  return BPF_STMT(BPF_RET | BPF_K, action);
}

void append(Code& code, const Code& more) {
  code.insert(code.end(), more.begin(), more.end());
}

// A filter sees an argument as two halves.
size_t offsetOfHalf(uint32_t argument, bool high) {
  return offsetof(seccomp_data, args) + 8 * argument + (high ? 4 : 0);
}

// The bits of one half that are compared, or the whole argument and its greatest value.
struct Test {
  enum Kind { HIGH_HALF, LOW_HALF, AT_MOST };
  uint32_t argument;
  Kind kind;
  uint64_t mask;
  uint64_t value;

  bool operator==(const Test& other) const {
    return std::tie(argument, kind, mask, value) ==
           std::tie(other.argument, other.kind, other.mask, other.value);
  }
};

struct Way {
  std::vector<Test> tests;  // all of them hold
  uint32_t action;
};

std::vector<Test> testsOf(const Condition& condition) {
  if (condition.test == Condition::AT_MOST) {
    return {{condition.argument, Test::AT_MOST, 0, condition.value}};
  }
  std::vector<Test> tests;
  for (bool high : {true, false}) {
    int shift = high ? 32 : 0;
    uint32_t mask = static_cast<uint32_t>(condition.mask >> shift);
    uint32_t value = static_cast<uint32_t>(condition.value >> shift);
    if (mask == 0) continue;
    tests.push_back({condition.argument, high ? Test::HIGH_HALF : Test::LOW_HALF, mask, value});
  }
  return tests;
}

Way wayOf(const Verdict& verdict) {
  Way way{{}, verdict.error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | verdict.error};
  for (const Condition& condition : verdict.conditions) {
    for (const Test& one : testsOf(condition))
      way.tests.push_back(one);
  }
  return way;
}

// Falls through when the test holds.
Code codeOf(const Test& one) {
  if (one.kind == Test::AT_MOST) {
    uint32_t high = static_cast<uint32_t>(one.value >> 32), low = static_cast<uint32_t>(one.value);
    return {load(offsetOfHalf(one.argument, true)), test(BPF_JGT, high, FAIL, 0),
            test(BPF_JEQ, high, 0, 2), load(offsetOfHalf(one.argument, false)),
            test(BPF_JGT, low, FAIL, 0)};
  }
  Code code{load(offsetOfHalf(one.argument, one.kind == Test::HIGH_HALF))};
  if (one.mask != ~uint32_t{0}) code.push_back(keepBits(static_cast<uint32_t>(one.mask)));
  code.push_back(test(BPF_JEQ, static_cast<uint32_t>(one.value), 0, FAIL));
  return code;
}

// `body` where the test holds, and what comes after `body` where it does not.
Code guard(const Test& one, const Code& body) {
  Code code = codeOf(one);
  size_t target = code.size() + body.size();
  if (target > LONGEST_JUMP) {
    // A conditional jump does not reach that far. It goes to one that does.
    target = code.size() + 1;
    code.push_back(skip(1));
    code.push_back(skip(body.size()));
  }
  for (size_t i = 0; i < code.size(); i++) {
    if (BPF_CLASS(code[i].code) != BPF_JMP || BPF_OP(code[i].code) == BPF_JA) continue;
    uint8_t distance = static_cast<uint8_t>(target - i - 1);
    if (code[i].jt == FAIL) code[i].jt = distance;
    if (code[i].jf == FAIL) code[i].jf = distance;
  }
  append(code, body);
  return code;
}

// The ways from `begin` to `end`, of which the first `depth` tests have been made. Falls through
// when none holds.
Code codeOf(const std::vector<Way>& ways, size_t begin, size_t end, size_t depth) {
  Code code;
  while (begin < end) {
    const Way& first = ways[begin];
    if (first.tests.size() == depth) {
      code.push_back(answer(first.action));
      return code;  // it holds always, and what follows is never asked
    }
    size_t next = begin + 1;
    while (next < end && ways[next].tests.size() > depth &&
           ways[next].tests[depth] == first.tests[depth]) {
      next++;
    }
    append(code, guard(first.tests[depth], codeOf(ways, begin, next, depth + 1)));
    begin = next;
  }
  return code;
}

struct Call {
  int number;
  std::vector<Way> ways;
};

std::vector<Call> callsOf(std::vector<Verdict> verdicts) {
  std::stable_sort(verdicts.begin(), verdicts.end(),
                   [](const Verdict& a, const Verdict& b) { return a.syscall < b.syscall; });
  std::vector<Call> calls;
  for (const Verdict& verdict : verdicts) {
    if (calls.empty() || calls.back().number != verdict.syscall) {
      calls.push_back({verdict.syscall, {}});
    }
    calls.back().ways.push_back(wayOf(verdict));
  }
  return calls;
}

// Of the calls from `begin` to `end`, which are at least one; the number is loaded. Always answers.
Code search(const std::vector<Call>& calls, size_t begin, size_t end) {
  if (end - begin == 1) {
    const Call& call = calls[begin];
    Code code{test(BPF_JEQ, call.number, 1, 0), answer(SECCOMP_RET_KILL_PROCESS)};
    append(code, codeOf(call.ways, 0, call.ways.size(), 0));
    bool always = call.ways.back().tests.empty();
    if (!always) code.push_back(answer(SECCOMP_RET_KILL_PROCESS));
    return code;
  }
  size_t middle = begin + (end - begin) / 2;
  Code lower = search(calls, begin, middle);
  Code code;
  if (lower.size() <= LONGEST_JUMP) {
    code = {test(BPF_JGE, calls[middle].number, static_cast<uint8_t>(lower.size()), 0)};
  } else {
    code = {test(BPF_JGE, calls[middle].number, 0, 1), skip(lower.size())};
  }
  append(code, lower);
  append(code, search(calls, middle, end));
  return code;
}

}  // namespace

std::vector<sock_filter> writeFilterCode(const std::vector<Verdict>& verdicts) {
  Code code{load(offsetof(seccomp_data, arch)), test(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
            answer(SECCOMP_RET_KILL_PROCESS),   load(offsetof(seccomp_data, nr)),
            test(BPF_JGE, X32_BIT, 0, 1),       answer(SECCOMP_RET_KILL_PROCESS)};
  auto calls = callsOf(verdicts);
  append(code,
         calls.empty() ? Code{answer(SECCOMP_RET_KILL_PROCESS)} : search(calls, 0, calls.size()));
  return code;
}

}  // namespace troupe::sandbox
