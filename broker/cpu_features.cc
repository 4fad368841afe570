#include "broker/cpu_features.h"

#include <kj/vector.h>

#include <algorithm>

#include "broker/refusal.h"

namespace troupe::broker {
namespace {

// The names of one CPUID register's bits from 0 up, apart by one space. "-": the kernel shows no
// such flag, or none that a guest of KVM ever sees.
struct Word {
  uint32_t leaf;
  uint32_t subleaf;
  CpuidRegister reg;
  kj::StringPtr names;
};

using R = CpuidRegister;

// The names follow arch/x86/include/asm/cpufeatures.h of Linux.
const Word WORDS[] = {
    {0x1, 0, R::EDX,
     "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts "
     "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"_kj},
    {0x1, 0, R::ECX,
     "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid "
     "dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand "
     "hypervisor"_kj},
    {0x6, 0, R::EAX, "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp"_kj},
    {0x7, 0, R::EBX,
     "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f "
     "avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd "
     "sha_ni avx512bw avx512vl"_kj},
    {0x7, 0, R::ECX,
     "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni "
     "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - "
     "movdiri movdir64b enqcmd sgx_lc"_kj},
    {0x7, 0, R::EDX,
     "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - "
     "tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 ibrs stibp "
     "flush_l1d arch_capabilities - ssbd"_kj},
    {0x7, 1, R::EAX,
     "- - - - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - - lkgs - - amx_fp16 - "
     "avx_ifma - - lam"_kj},
    {0xd, 1, R::EAX, "xsaveopt xsavec xgetbv1 xsaves xfd"_kj},
    {0x80000001, 0, R::EDX,
     "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm "
     "3dnowext 3dnow"_kj},
    {0x80000001, 0, R::ECX,
     "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
     "skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc "
     "perfctr_llc mwaitx"_kj},
    {0x80000007, 0, R::EDX, "- - - - - - - - nonstop_tsc"_kj},
    {0x80000007, 0, R::EDX, "- - - - - - - - constant_tsc"_kj},
    {0x80000008, 0, R::EBX,
     "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - - - - - - - "
     "amd_ppin ssbd virt_ssbd - cppc"_kj},
    {0x8000000a, 0, R::EDX,
     "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - "
     "pfthreshold avic - v_vmsave_vmload vgif"_kj},
    // One bit stands for both on Intel, two on AMD.
    {0x7, 0, R::EDX, "- - - - - - - - - - - - - - - - - - - - - - - - - - ibpb"_kj},
};

template <typename Visitor>
void forEachFeature(Visitor&& visit) {
  for (auto& word : WORDS) {
    uint8_t bit = 0;
    const char* start = word.names.begin();
    while (start < word.names.end()) {
      const char* end = std::find(start, word.names.end(), ' ');
      auto name = kj::arrayPtr(start, end);
      if (name != "-"_kj.asArray()) visit(name, CpuFeature{word.leaf, word.subleaf, word.reg, bit});
      ++bit;
      start = end == word.names.end() ? end : end + 1;
    }
  }
}

// Insertions, deletions and replacements that make one of the other.
size_t distance(kj::ArrayPtr<const char> a, kj::ArrayPtr<const char> b) {
  auto row = kj::heapArray<size_t>(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

[[noreturn]] void refuseName(kj::StringPtr name) {
  constexpr size_t LONGEST_ECHO = 40;
  auto shown = name.asArray().slice(0, std::min(name.size(), LONGEST_ECHO));
  kj::ArrayPtr<const char> nearest;
  size_t best = ~size_t(0);
  forEachFeature([&](kj::ArrayPtr<const char> candidate, const CpuFeature&) {
    size_t d = distance(shown, candidate);
    if (d < best) {
      best = d;
      nearest = candidate;
    }
  });
  refuse("TRP-cfg-101: unknown CPU feature \"", shown, "\" in --cpu-mask; the nearest is \"",
         nearest, "\". Names are those of the line \"flags\" in /proc/cpuinfo");
}

}  // namespace

kj::Array<CpuFeature> cpuFeatures(kj::ArrayPtr<const kj::StringPtr> names) {
  kj::Vector<CpuFeature> features;
  for (auto name : names) {
    size_t before = features.size();
    forEachFeature([&](kj::ArrayPtr<const char> candidate, const CpuFeature& feature) {
      if (candidate == name.asArray()) features.add(feature);
    });
    if (features.size() == before) refuseName(name);
  }
  return features.releaseAsArray();
}

}  // namespace troupe::broker
