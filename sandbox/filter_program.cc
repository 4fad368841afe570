#include "sandbox/filter_program.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

namespace troupe::sandbox {
namespace {

constexpr int X32_BIT = 0x40000000;

// Enough of the interface's levels for every action used here, whatever kernel the build runs on.
constexpr uint32_t LIBSECCOMP_LEVEL = 5;

void check(int result, const std::string& what) {
  if (result < 0) throw std::runtime_error("libseccomp: " + what + ": " + strerror(-result));
}

scmp_arg_cmp comparison(const Condition& condition) {
  if (condition.test == Condition::AT_MOST) {
    return {condition.argument, SCMP_CMP_LE, condition.value, 0};
  }
  if (condition.mask == ~uint64_t{0}) {
    return {condition.argument, SCMP_CMP_EQ, condition.value, 0};
  }
  return {condition.argument, SCMP_CMP_MASKED_EQ, condition.mask, condition.value};
}

std::vector<sock_filter> exportProgram(scmp_filter_ctx context) {
  int fd = memfd_create("filter", MFD_CLOEXEC);
  check(fd < 0 ? -errno : 0, "memfd_create");
  int result = seccomp_export_bpf(context, fd);
  off_t size = lseek(fd, 0, SEEK_END);
  std::vector<sock_filter> program(size > 0 ? size / sizeof(sock_filter) : 0);
  ssize_t bytes = pread(fd, program.data(), program.size() * sizeof(sock_filter), 0);
  close(fd);
  check(result, "export");
  if (program.empty() || bytes != ssize_t(program.size() * sizeof(sock_filter))) {
    throw std::runtime_error("libseccomp: the exported program is cut off");
  }
  return program;
}

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

}  // namespace

std::vector<sock_filter> buildProgram(const PolicyFilter& filter) {
  check(seccomp_api_set(LIBSECCOMP_LEVEL), "api level");
  std::unique_ptr<void, void (*)(void*)> context(seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                 [](void* c) { seccomp_release(c); });
  if (!context) throw std::runtime_error("libseccomp: cannot begin a filter");
  check(seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS),
        "action for other architectures");
  // A tree of comparisons instead of a list: the kernel tries every system call there is when the
  // filter is installed, and walks it for each call whose arguments matter.
  check(seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2), "a tree of system calls");
  for (const Verdict& verdict : filter.verdicts) {
    std::vector<scmp_arg_cmp> comparisons;
    for (const Condition& condition : verdict.conditions) {
      comparisons.push_back(comparison(condition));
    }
    uint32_t action = verdict.error == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(verdict.error);
    check(seccomp_rule_add_exact_array(context.get(), action, verdict.syscall, comparisons.size(),
                                       comparisons.data()),
          "rule for system call " + std::to_string(verdict.syscall));
  }
  auto program = exportProgram(context.get());
  if (program.size() > BPF_MAXINSNS) {
    throw std::runtime_error("the program of stage " + filter.stage + " has " +
                             std::to_string(program.size()) + " instructions; the kernel takes " +
                             std::to_string(BPF_MAXINSNS));
  }
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
