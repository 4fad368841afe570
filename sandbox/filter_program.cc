#include "sandbox/filter_program.h"

#include <linux/audit.h>
#include <linux/seccomp.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "sandbox/filter_code.h"

namespace troupe::sandbox {
namespace {

constexpr int X32_BIT = 0x40000000;

void expectSame(const PolicyFilter& filter, const std::vector<sock_filter>& program, int syscall,
                const uint64_t (&arguments)[6]) {
  uint32_t wanted = decide(filter, syscall, arguments);
  uint32_t got = evaluate(program, AUDIT_ARCH_X86_64, syscall, arguments);
  if (wanted == got) return;
  throw std::runtime_error("the program of stage " + filter.stage + " answers " +
                           std::to_string(got) + " to system call " + std::to_string(syscall) +
                           " where its rules say " + std::to_string(wanted));
}

void verify(const PolicyFilter& filter, const std::vector<sock_filter>& program) {
  uint64_t none[6] = {};
  for (int syscall = -1; syscall < 600; syscall++)
    expectSame(filter, program, syscall, none);
  for (const Verdict& verdict : filter.verdicts) {
    uint64_t arguments[6] = {};
    for (const Condition& condition : verdict.conditions) {
      arguments[condition.argument] = condition.value;
    }
    expectSame(filter, program, verdict.syscall, arguments);
    for (uint64_t& argument : arguments) {
      uint64_t original = argument;
      for (int bit = 0; bit < 64; bit++) {
        argument = original ^ (uint64_t{1} << bit);
        expectSame(filter, program, verdict.syscall, arguments);
      }
      for (uint64_t neighbour : {original + 1, original - 1, ~original, uint64_t{0}}) {
        argument = neighbour;
        expectSame(filter, program, verdict.syscall, arguments);
      }
      argument = original;
    }
    for (uint32_t architecture : {uint32_t(AUDIT_ARCH_I386), uint32_t(AUDIT_ARCH_AARCH64)}) {
      if (evaluate(program, architecture, verdict.syscall, arguments) != SECCOMP_RET_KILL_PROCESS) {
        throw std::runtime_error("the program lets calls of another architecture through");
      }
    }
    if (evaluate(program, AUDIT_ARCH_X86_64, verdict.syscall | X32_BIT, arguments) !=
        SECCOMP_RET_KILL_PROCESS) {
      throw std::runtime_error("the program lets x32 calls through");
    }
  }
}

// Names the rule that takes the most of it.
ProfileError tooLong(const PolicyFilter& filter, size_t length) {
  SourceLocation where;
  size_t most = 0;
  for (const PolicyRule& rule : filter.rules) {
    size_t ways = rule.verdicts().size();
    if (rule.where.line == 0 || ways <= most) continue;
    most = ways;
    where = rule.where;
  }
  return ProfileError(where, "the filter of " + filter.stage + " would have " +
                                 std::to_string(length) + " instructions, and the kernel takes " +
                                 std::to_string(BPF_MAXINSNS) +
                                 "; most of them are for the combinations of this rule (" +
                                 std::to_string(most) + "): give it fewer conditions or values");
}

}  // namespace

std::vector<sock_filter> buildProgram(const PolicyFilter& filter) {
  auto program = writeFilterCode(filter.verdicts);
  if (program.size() > BPF_MAXINSNS) throw tooLong(filter, program.size());
  verify(filter, program);
  return program;
}

uint32_t decide(const PolicyFilter& filter, int syscall, const uint64_t (&arguments)[6]) {
  for (const Verdict& verdict : filter.verdicts) {
    if (verdict.syscall != syscall) continue;
    bool holds = true;
    for (const Condition& condition : verdict.conditions) {
      holds = holds && condition.holds(arguments);
    }
    if (!holds) continue;
    return verdict.error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | verdict.error;
  }
  return SECCOMP_RET_KILL_PROCESS;
}

uint32_t evaluate(const std::vector<sock_filter>& program, uint32_t architecture, int syscall,
                  const uint64_t (&arguments)[6]) {
  seccomp_data data = {};
  data.nr = syscall;
  data.arch = architecture;
  memcpy(data.args, arguments, sizeof(data.args));
  uint32_t accumulator = 0;
  for (size_t at = 0; at < program.size(); at++) {
    const sock_filter& step = program[at];
    auto jump = [&](bool taken) { at += taken ? step.jt : step.jf; };
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (step.k > sizeof(data) - 4) throw std::runtime_error("load beyond seccomp_data");
        memcpy(&accumulator, reinterpret_cast<const char*>(&data) + step.k, 4);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= step.k;
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(accumulator == step.k);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        jump(accumulator > step.k);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(accumulator >= step.k);
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        throw std::runtime_error("unknown instruction " + std::to_string(step.code));
    }
  }
  throw std::runtime_error("the program runs off its end");
}

}  // namespace troupe::sandbox
