#include "sandbox/filter_answer.h"

#include <cstring>

namespace troupe::sandbox {
namespace {

constexpr uint32_t DEATH = SECCOMP_RET_KILL_PROCESS;

bool jumps(const sock_filter& step, uint32_t accumulator) {
  switch (BPF_OP(step.code)) {
    case BPF_JEQ:
      return accumulator == step.k;
    case BPF_JGT:
      return accumulator > step.k;
    case BPF_JGE:
      return accumulator >= step.k;
    default:
      return (accumulator & step.k) != 0;  // BPF_JSET
  }
}

}  // namespace

uint32_t answerOf(const ProfileFilter& filter, const seccomp_data& call) {
  uint32_t accumulator = 0;
  for (size_t at = 0; at < filter.length; at++) {
    const sock_filter& step = filter.program[at];
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (step.k > sizeof(call) - sizeof(accumulator)) return DEATH;
        memcpy(&accumulator, reinterpret_cast<const char*>(&call) + step.k, sizeof(accumulator));
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= step.k;
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
      case BPF_JMP | BPF_JGT | BPF_K:
      case BPF_JMP | BPF_JGE | BPF_K:
      case BPF_JMP | BPF_JSET | BPF_K:
        at += jumps(step, accumulator) ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        return DEATH;
    }
  }
  return DEATH;
}

}  // namespace troupe::sandbox
