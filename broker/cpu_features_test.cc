#include "broker/cpu_features.h"

#include <gtest/gtest.h>
#include <kj/exception.h>

namespace troupe::broker {
namespace {

kj::Array<CpuFeature> featuresOf(std::initializer_list<kj::StringPtr> names) {
  return cpuFeatures(kj::arrayPtr(names.begin(), names.size()));
}

std::string refusalOf(kj::StringPtr name) {
  try {
    featuresOf({name});
  } catch (const kj::Exception& e) {
    return e.getDescription().cStr();
  }
  return "";
}

TEST(CpuFeatures, AreFoundByTheirNamesInCpuinfo) {
  auto features = featuresOf({"avx2", "lm", "hypervisor", "xsaves"});
  ASSERT_EQ(features.size(), 4u);
  EXPECT_EQ(features[0].leaf, 7u);
  EXPECT_EQ(features[0].reg, CpuidRegister::EBX);
  EXPECT_EQ(features[0].bit, 5);
  EXPECT_EQ(features[1].leaf, 0x80000001u);
  EXPECT_EQ(features[1].bit, 29);
  EXPECT_EQ(features[2].bit, 31);
  EXPECT_EQ(features[3].subleaf, 1u);
  EXPECT_EQ(features[3].bit, 3);
}

// Fixed points in each word of the table: a name too many or too few would move all after it.
TEST(CpuFeatures, HaveTheBitsOfTheManuals) {
  struct Known {
    kj::StringPtr name;
    uint8_t bit;
  };
  for (auto& known :
       {Known{"pbe", 31},       Known{"xsave", 26},       Known{"rdrand", 30},
        Known{"hwp", 7},        Known{"avx512vl", 31},    Known{"sgx_lc", 30},
        Known{"rdpid", 22},     Known{"la57", 16},        Known{"arch_capabilities", 29},
        Known{"serialize", 14}, Known{"avx512_fp16", 23}, Known{"lam", 26},
        Known{"lkgs", 18},      Known{"3dnow", 31},       Known{"nx", 20},
        Known{"mwaitx", 29},    Known{"topoext", 22},     Known{"cppc", 27},
        Known{"wbnoinvd", 9},   Known{"vgif", 16},        Known{"nonstop_tsc", 8}}) {
    EXPECT_EQ(featuresOf({known.name})[0].bit, known.bit) << known.name.cStr();
  }
}

TEST(CpuFeatures, MayBeSeveralBitsOfOneName) {
  EXPECT_EQ(featuresOf({"ssbd"}).size(), 2u);  // Intel's and AMD's
}

TEST(CpuFeatures, RefuseAnUnknownNameAndOfferTheNearest) {
  auto text = refusalOf("avx22");
  EXPECT_EQ(text.find("TRP-cfg-101: unknown CPU feature \"avx22\""), 0u) << text;
  EXPECT_NE(text.find("nearest is \"avx2\""), std::string::npos) << text;
}

TEST(CpuFeatures, RefuseNamesThatAreNone) {
  for (auto name : {"", "-", "AVX2", "avx2 ", "sse sse2"})
    EXPECT_NE(refusalOf(name), "") << name;
  EXPECT_LT(refusalOf(kj::str(kj::repeat('x', 1 << 20))).size(), 300u);
}

}  // namespace
}  // namespace troupe::broker
