#include "sandbox/probe/cases.h"

#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/loop.h>
#include <linux/nsfs.h>
#include <linux/perf_event.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "third_party/linux_kvm.h"

namespace troupe::sandbox::probe {
namespace {

constexpr uint64_t NOTHING = ~uint64_t{0};
constexpr uint64_t BIT = 1;

std::vector<uint64_t> valuesThatBreak(const Condition& condition) {
  if (condition.test == Condition::AT_MOST) {
    return {condition.value + 1, condition.value | BIT << 32, NOTHING};
  }
  std::vector<uint64_t> values;
  // The lowest bit that counts, and the ends of both halves.
  for (uint64_t flipped : {condition.mask & -condition.mask, BIT << 31, BIT << 32, BIT << 63}) {
    if (condition.mask & flipped) values.push_back(condition.value ^ flipped);
  }
  return values;
}

}  // namespace

VerdictCases casesOf(const Verdict& verdict) {
  VerdictCases cases = {{verdict.syscall, {}}, {}};
  for (uint64_t& argument : cases.passing.arguments)
    argument = NOTHING;
  for (const Condition& condition : verdict.conditions) {
    cases.passing.arguments[condition.argument] = condition.value;
  }
  for (const Condition& condition : verdict.conditions) {
    std::vector<RawCall> ways;
    for (uint64_t value : valuesThatBreak(condition)) {
      ways.push_back(cases.passing);
      ways.back().arguments[condition.argument] = value;
    }
    cases.violating.push_back(std::move(ways));
  }
  return cases;
}

std::vector<RawCall> everyNumber() {
  std::vector<RawCall> calls;
  for (int64_t number = 0; number < NUMBER_COUNT; number++) {
    calls.push_back({number, {}});
    calls.push_back({number, {NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING}});
  }
  return calls;
}

std::vector<RawCall> everyNumberOtherwise() {
  std::vector<RawCall> calls;
  for (int64_t number = 0; number < NUMBER_COUNT; number++) {
    calls.push_back({number | I386_CALL, {}});
    calls.push_back({number | X32_CALL, {}});
    calls.push_back({number | int64_t{1} << 32, {}});
  }
  for (int64_t number : {-1l, -2l, 0x3fffffffl, 0x7fffffffl, 0x80000000l, 0xffffffffl, 0x7ffffffl})
    calls.push_back({number & ~I386_CALL, {}});
  return calls;
}

const std::vector<NamedRequest>& knownRequests() {
  static const std::vector<NamedRequest> REQUESTS = {
      {"FIONBIO", FIONBIO},
      {"FIOCLEX", FIOCLEX},
      {"FIONCLEX", FIONCLEX},
      {"FIONREAD", FIONREAD},
      {"FIOASYNC", FIOASYNC},
      {"FIOQSIZE", FIOQSIZE},
      {"FIBMAP", FIBMAP},
      {"FIGETBSZ", FIGETBSZ},
      {"FIFREEZE", FIFREEZE},
      {"FITRIM", FITRIM},
      {"FICLONE", FICLONE},
      {"FS_IOC_GETFLAGS", FS_IOC_GETFLAGS},
      {"FS_IOC_SETFLAGS", FS_IOC_SETFLAGS},
      {"TCGETS", TCGETS},
      {"TCSETS", TCSETS},
      {"TCFLSH", TCFLSH},
      {"TIOCSTI", TIOCSTI},
      {"TIOCSCTTY", TIOCSCTTY},
      {"TIOCNOTTY", TIOCNOTTY},
      {"TIOCSPGRP", TIOCSPGRP},
      {"TIOCGWINSZ", TIOCGWINSZ},
      {"TIOCSWINSZ", TIOCSWINSZ},
      {"TIOCSETD", TIOCSETD},
      {"TIOCLINUX", TIOCLINUX},
      {"TIOCCONS", TIOCCONS},
      {"TIOCGPTPEER", TIOCGPTPEER},
      {"BLKGETSIZE64", BLKGETSIZE64},
      {"BLKDISCARD", BLKDISCARD},
      {"BLKSECDISCARD", BLKSECDISCARD},
      {"BLKZEROOUT", BLKZEROOUT},
      {"BLKROSET", BLKROSET},
      {"BLKRRPART", BLKRRPART},
      {"BLKFLSBUF", BLKFLSBUF},
      {"BLKPG", BLKPG},
      {"SG_IO", SG_IO},
      {"LOOP_SET_FD", LOOP_SET_FD},
      {"SIOCATMARK", SIOCATMARK},
      {"SIOCGIFCONF", SIOCGIFCONF},
      {"SIOCSIFFLAGS", SIOCSIFFLAGS},
      {"SIOCSPGRP", SIOCSPGRP},
      {"SIOCUNIXFILE", SIOCPROTOPRIVATE},
      {"TUNSETIFF", TUNSETIFF},
      {"TUNGETIFF", TUNGETIFF},
      {"TUNSETPERSIST", TUNSETPERSIST},
      {"TUNSETOWNER", TUNSETOWNER},
      {"TUNSETLINK", TUNSETLINK},
      {"TUNSETOFFLOAD", TUNSETOFFLOAD},
      {"TUNATTACHFILTER", TUNATTACHFILTER},
      {"TUNSETVNETHDRSZ", TUNSETVNETHDRSZ},
      {"TUNSETQUEUE", TUNSETQUEUE},
      {"TUNSETSTEERINGEBPF", TUNSETSTEERINGEBPF},
      {"TUNSETCARRIER", TUNSETCARRIER},
      {"UFFDIO_API", UFFDIO_API},
      {"NS_GET_USERNS", NS_GET_USERNS},
      {"PERF_EVENT_IOC_ENABLE", PERF_EVENT_IOC_ENABLE},
      {"KVM_GET_API_VERSION", KVM_GET_API_VERSION},
      {"KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION},
      {"KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE},
      {"KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID},
      {"KVM_GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST},
      {"KVM_CREATE_VM", KVM_CREATE_VM},
      {"KVM_CREATE_DEVICE", KVM_CREATE_DEVICE},
      {"KVM_CREATE_IRQCHIP", KVM_CREATE_IRQCHIP},
      {"KVM_CREATE_PIT2", KVM_CREATE_PIT2},
      {"KVM_CREATE_VCPU", KVM_CREATE_VCPU},
      {"KVM_ENABLE_CAP", KVM_ENABLE_CAP},
      {"KVM_GET_DIRTY_LOG", KVM_GET_DIRTY_LOG},
      {"KVM_IOEVENTFD", KVM_IOEVENTFD},
      {"KVM_IRQFD", KVM_IRQFD},
      {"KVM_IRQ_LINE", KVM_IRQ_LINE},
      {"KVM_SET_GSI_ROUTING", KVM_SET_GSI_ROUTING},
      {"KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR},
      {"KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR},
      {"KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION},
      {"KVM_SIGNAL_MSI", KVM_SIGNAL_MSI},
      {"KVM_RUN", KVM_RUN},
      {"KVM_GET_REGS", KVM_GET_REGS},
      {"KVM_SET_REGS", KVM_SET_REGS},
      {"KVM_GET_SREGS", KVM_GET_SREGS},
      {"KVM_SET_SREGS", KVM_SET_SREGS},
      {"KVM_GET_MSRS", KVM_GET_MSRS},
      {"KVM_SET_MSRS", KVM_SET_MSRS},
      {"KVM_GET_LAPIC", KVM_GET_LAPIC},
      {"KVM_SET_LAPIC", KVM_SET_LAPIC},
      {"KVM_SET_CPUID2", KVM_SET_CPUID2},
      {"KVM_GET_TSC_KHZ", KVM_GET_TSC_KHZ},
      {"KVM_SET_GUEST_DEBUG", KVM_SET_GUEST_DEBUG},
      {"KVM_INTERRUPT", KVM_INTERRUPT},
      {"KVM_NMI", KVM_NMI},
      {"KVM_TRANSLATE", KVM_TRANSLATE},
  };
  return REQUESTS;
}

std::vector<uint64_t> everyRequestType() {
  std::vector<uint64_t> requests;
  for (uint64_t type = 0; type < 256; type++) {
    for (uint64_t number : {0, 7, 32}) {
      uint64_t request = type << 8 | number;
      bool known = std::any_of(knownRequests().begin(), knownRequests().end(),
                               [&](const NamedRequest& one) { return one.request == request; });
      if (!known) requests.push_back(request);
    }
  }
  return requests;
}

RawCall ioctlCall(uint64_t fd, uint64_t request) {
  return {SYS_ioctl, {fd, request, NOTHING, NOTHING, NOTHING, NOTHING}};
}

std::string syscallName(int64_t number) {
  char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, int(number));
  std::string result = name == nullptr ? std::to_string(number) : name;
  free(name);
  return result;
}

std::string describe(const RawCall& call) {
  const char* convention = call.number & I386_CALL ? "i386 " : call.number & X32_CALL ? "x32 " : "";
  std::string text = convention + syscallName(call.number & ~(I386_CALL | X32_CALL)) + "(";
  for (uint64_t argument : call.arguments) {
    char word[24];
    snprintf(word, sizeof(word), "0x%lx", static_cast<unsigned long>(argument));
    text += (text.back() == '(' ? "" : ", ") + std::string(argument == NOTHING ? "~0" : word);
  }
  return text + ")";
}

}  // namespace troupe::sandbox::probe
