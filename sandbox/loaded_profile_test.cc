#include "sandbox/loaded_profile.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include "sandbox/testing/sample_profile.h"

// The compiler may be in somebody else's hands: whatever it sends is checked.
namespace troupe::sandbox {
namespace {

// A sound message, to be spoilt.
class Sent {
 public:
  Sent() {
    sent.setPath("p");
    sent.setActor("sample");
    sent.setSource("/etc/mine/sample.profile");
    auto fd = sent.initFds(1)[0];
    fd.setName("disk");
    fd.setNumber(16);
    fd.setCount(1);
    fd.setKind("file");
    sock_filter step = {6, 0, 0, 0x7fff0000};
    auto filter = sent.initFilters(1)[0];
    filter.setStage("start");
    filter.setProgram(kj::arrayPtr(&step, 1).asBytes());
    for (auto layer : sent.getLayers().initNamespaces(NAMESPACE_COUNT))
      layer.setNeed(ProfileLayer::REQUIRED);
    sent.getLayers().initLandlock(LANDLOCK_ACCESS_COUNT);
  }

  CompiledProfile::Builder operator*() { return sent; }

  void expectRefused(kj::StringPtr what) {
    KJ_IF_MAYBE (exception,
                 kj::runCatchingExceptions([&]() { LoadedProfile loaded(sent.asReader()); })) {
      EXPECT_EQ(kj::str("TRP-jail-031: the compiler of profiles sent what is none: ", what),
                exception->getDescription());
    } else {
      ADD_FAILURE() << what.cStr() << " was taken";
    }
  }

 private:
  capnp::MallocMessageBuilder message;
  CompiledProfile::Builder sent = message.initRoot<CompiledProfile>();
};

TEST(LoadedProfile, HasWhatWasSent) {
  Sent sent;
  LoadedProfile loaded((*sent).asReader());
  const Profile& profile = loaded.profile();
  EXPECT_STREQ("sample", profile.actor);
  EXPECT_STREQ("/etc/mine/sample.profile", profile.source);
  ASSERT_EQ(1u, profile.fdCount);
  EXPECT_STREQ("disk", profile.fds[0].name);
  EXPECT_EQ(16u, profile.fds[0].number);
  ASSERT_EQ(1u, profile.filterCount);
  EXPECT_EQ(0x7fff0000u, profile.filters[0].program[0].k);
}

TEST(LoadedProfile, RefusesFds) {
  Sent large;
  (*large).getFds()[0].setNumber(70000);
  large.expectRefused("an fd");
  Sent odd;
  (*odd).getFds()[0].setKind("anything");
  odd.expectRefused("an fd");
  Sent name;
  (*name).getFds()[0].setName("a\033[2J");
  name.expectRefused("a name");
  Sent many;
  (*many).initFds(300);
  many.expectRefused("the number of fds");
}

TEST(LoadedProfile, RefusesFilters) {
  Sent none;
  (*none).initFilters(0);
  none.expectRefused("the filters");
  Sent late;
  (*late).getFilters()[0].setStage("run");
  late.expectRefused("the filters");
  Sent half;
  (*half).getFilters()[0].initProgram(12);
  half.expectRefused("a filter");
  Sent empty;
  (*empty).getFilters()[0].initProgram(0);
  empty.expectRefused("a filter");
  Sent large;
  (*large).getFilters()[0].initProgram(8 * 4097);
  large.expectRefused("a filter");
}

TEST(LoadedProfile, RefusesLayers) {
  Sent few;
  (*few).getLayers().initNamespaces(3);
  few.expectRefused("the number of layers");
  Sent need;
  (*need).getLayers().getMdwe().setNeed(9);
  need.expectRefused("a layer");
  Sent memory;
  (*memory).getLayers().setMemoryAccess(9);
  memory.expectRefused("the access to memory");
  for (auto kind : {NamespaceKind::USER, NamespaceKind::MOUNT}) {
    Sent open;
    (*open).getLayers().getNamespaces()[size_t(kind)].setNeed(ProfileLayer::OPTIONAL);
    open.expectRefused("a jail without its own users and mounts");
  }
}

TEST(LoadedProfile, RefusesLimitsThatAreNone) {
  Sent cgroup;
  (*cgroup).getLayers().initCgroupLimits(1);
  cgroup.expectRefused("a limit that is off");
  Sent io;
  (*io).getLayers().initIoLimits(1)[0].setFd("disk");
  io.expectRefused("a limit that is off");
  Sent opcodes;
  const kj::byte twice[] = {1, 1};
  (*opcodes).getLayers().setIoUringOpcodes(kj::arrayPtr(twice, 2));
  opcodes.expectRefused("the order of opcodes");
}

TEST(LoadedProfile, RefusesAnotherTableOfFds) {
  Sent sent;
  LoadedProfile loaded((*sent).asReader());
  EXPECT_ANY_THROW(requireSameFds(loaded.profile(), SAMPLE_PROFILE));
  EXPECT_NO_THROW(requireSameFds(loaded.profile(), loaded.profile()));
}

}  // namespace
}  // namespace troupe::sandbox
