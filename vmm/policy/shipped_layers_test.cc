// The layers of every profile built in.
#include <gtest/gtest.h>

#include <set>

#include "sandbox/policy.h"
#include "vmm/policy/actor_profiles.h"
#include "vmm/policy/catalogue.h"

namespace troupe::sandbox {
namespace {

// Of those that are programs of ours.
template <typename Check>
void forEachActor(Check&& check) {
  for (const CataloguedActor& actor : builtInActors()) {
    SCOPED_TRACE(actor.name);
    PolicyLayers layers = readPolicy(BuiltInFiles(), actor.path).layers;
    if (!layers.helper.is) check(layers);
  }
}

TEST(Catalogue, CanReplaceTheProfileOfEachActorOfAVmAndNoOther) {
  std::set<std::string> players, replaceable;
  for (const Profile* profile : playerProfiles())
    players.insert(profile->source);
  for (const CataloguedActor& actor : replaceableActors())
    replaceable.insert(actor.path);
  EXPECT_EQ(players, replaceable);
}

TEST(ShippedLayers, OneHelperHasTheHostsNetworkAndNothingElseOfItsOwnAccord) {
  std::string helpers;
  for (const CataloguedActor& actor : builtInActors()) {
    PolicyLayers layers = readPolicy(BuiltInFiles(), actor.path).layers;
    if (!layers.helper.is) continue;
    helpers += actor.name;
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
      bool own = NamespaceKind(i) != NamespaceKind::NET;
      EXPECT_EQ(own ? "required" : "off", needText(layers.namespaces[i].layer)) << i;
    }
    EXPECT_EQ(ProfileMemory::NONE, layers.memory.access);
    EXPECT_TRUE(layers.capabilities.empty());
    EXPECT_TRUE(layers.ioUringOpcodes.empty());
  }
  EXPECT_EQ("passt", helpers);
}

TEST(ShippedLayers, AreSaidAloud) {
  forEachActor([](const PolicyLayers& layers) {
    for (const PolicyLayer& one : layers.namespaces)
      EXPECT_GT(one.where.line, 0);
    for (const PolicyLayer& one : layers.landlock)
      EXPECT_GT(one.where.line, 0);
    for (const SourceLocation& where :
         {layers.root, layers.mdwe.where, layers.executableSeals.where, layers.minimumKernelAt,
          layers.memory.where, layers.restartAt}) {
      EXPECT_GT(where.line, 0);
    }
  });
}

TEST(ShippedLayers, AreAllAskedForAndMayBeMissingOnlyBeforeKernelsHadThem) {
  forEachActor([](const PolicyLayers& layers) {
    for (const PolicyLayer& one : layers.namespaces)
      EXPECT_EQ("required", needText(one.layer));
    EXPECT_EQ("required", needText(layers.landlock[size_t(LandlockAccess::FILES)].layer));
    for (const PolicyLayer& one : layers.landlock)
      EXPECT_FALSE(!one.layer.wanted() || one.layer.mayBeMissing(kernelVersion(6, 12)));
    EXPECT_EQ("since 6.3", needText(layers.mdwe.layer));
    EXPECT_EQ("since 6.3", needText(layers.executableSeals.layer));
    EXPECT_TRUE(layers.capabilities.empty());
  });
}

constexpr uint32_t KERNEL = kernelVersion(6, 1);  // Debian 12's

TEST(ShippedLayers, StartOnLinux61) {
  forEachActor([](const PolicyLayers& layers) {
    EXPECT_LE(layers.minimumKernel, KERNEL);
    for (auto access :
         {LandlockAccess::TRUNCATE, LandlockAccess::TCP, LandlockAccess::DEVICE_IOCTLS,
          LandlockAccess::ABSTRACT_SOCKETS, LandlockAccess::SIGNALS}) {
      EXPECT_TRUE(layers.landlock[size_t(access)].layer.mayBeMissing(KERNEL));
    }
    EXPECT_TRUE(layers.mdwe.layer.mayBeMissing(KERNEL));
    EXPECT_TRUE(layers.executableSeals.layer.mayBeMissing(KERNEL));
  });
}

}  // namespace
}  // namespace troupe::sandbox
