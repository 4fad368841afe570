#include "vmm/config/vsock_plan.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

#include "vmm/config/vsock_option.h"
#include "vmm/words/user_error.h"

namespace troupe {
namespace {

struct Parsed {
  capnp::MallocMessageBuilder message;
  VsockOptions::Builder options = message.initRoot<VsockOptions>();

  explicit Parsed(kj::StringPtr text) { parseVsock(text, options); }
  VsockPlan plan() { return planVsock(options); }
};

std::string errorOf(kj::StringPtr text) {
  try {
    Parsed(text).plan();
  } catch (const kj::Exception& exception) {
    return exception.getDescription().cStr();
  }
  return "";
}

std::string codeOf(kj::StringPtr text) {
  return errorOf(text).substr(0, 11);
}

TEST(Vsock, AllPartsAreUnderstood) {
  auto plan = Parsed("cid=77,socket=/run/v,forward=22:/run/ssh,forward=80:/run/a,,b:c").plan();
  EXPECT_EQ(KJ_ASSERT_NONNULL(plan.cid), 77);
  EXPECT_STREQ(KJ_ASSERT_NONNULL(plan.socket).cStr(), "/run/v");
  ASSERT_EQ(plan.forwards.size(), 2);
  EXPECT_EQ(plan.forwards[0].port, 22);
  EXPECT_STREQ(plan.forwards[0].path.cStr(), "/run/ssh");
  EXPECT_EQ(plan.forwards[1].port, 80);
  EXPECT_STREQ(plan.forwards[1].path.cStr(), "/run/a,b:c");
}

TEST(Vsock, EveryPartMayBeLeftOut) {
  auto plan = Parsed("socket=v").plan();
  EXPECT_TRUE(plan.cid == nullptr);
  EXPECT_EQ(plan.forwards.size(), 0);
  EXPECT_TRUE(Parsed("cid=3").plan().socket == nullptr);
}

TEST(Vsock, UnknownAndEmptyPartsAreRefused) {
  for (auto text : {"", "cid", "cid=", "sokcet=v", "socket=", "forward=", "cid=3,", "v.sock"})
    EXPECT_EQ(codeOf(text), "TRP-vsk-001") << text;
  EXPECT_NE(errorOf("sokcet=v").find("did you mean socket?"), std::string::npos);
  EXPECT_EQ(codeOf("cid=3,cid=4"), "TRP-cfg-005");
  EXPECT_EQ(codeOf("socket=a,socket=b"), "TRP-cfg-005");
}

TEST(Vsock, CidsThatNoGuestMayHaveAreRefused) {
  for (auto text : {"cid=0", "cid=1", "cid=2", "cid=4294967295", "cid=18446744073709551615",
                    "cid=18446744073709551616", "cid=-3", "cid=0x10", "cid=three"})
    EXPECT_EQ(codeOf(text), "TRP-vsk-002") << text;
  EXPECT_EQ(codeOf("cid=4294967294"), "");
}

TEST(Vsock, CidsOfAFileAreLookedAtLikewise) {
  for (uint32_t cid : {1u, 2u, UINT32_MAX}) {
    capnp::MallocMessageBuilder message;
    auto options = message.initRoot<VsockOptions>();
    options.setCid(cid);
    EXPECT_ANY_THROW(planVsock(options)) << cid;
  }
}

TEST(Vsock, ForwardsThatAreNoPortAndPathAreRefused) {
  for (auto text : {"forward=22", "forward=:p", "forward=p:22", "forward=-1:p",
                    "forward=4294967295:p", "forward=22 :p"})
    EXPECT_EQ(codeOf(text), "TRP-vsk-001") << text;
  EXPECT_EQ(codeOf("forward=22:"), "TRP-vsk-004");
  std::string many;
  for (int i = 0; i < 64; i++)
    many += (i > 0 ? ",forward=1:p" : "forward=1:p") + std::to_string(i);
  EXPECT_EQ(codeOf(many.c_str()), "TRP-vsk-001");
}

TEST(Vsock, PathsThatAreTooLongOrGivenTwiceAreRefused) {
  std::string path(97, 'p');
  EXPECT_EQ(codeOf(("socket=" + path).c_str()), "TRP-vsk-004");
  EXPECT_EQ(codeOf(("socket=" + path.substr(1)).c_str()), "");
  EXPECT_EQ(codeOf(("forward=1:" + std::string(108, 'p')).c_str()), "TRP-vsk-004");
  EXPECT_EQ(codeOf(("forward=1:" + std::string(107, 'p')).c_str()), "");
  EXPECT_EQ(codeOf("forward=1:p,forward=2:p"), "TRP-vsk-004");
  EXPECT_EQ(codeOf("socket=p,forward=2:p"), "TRP-vsk-004");
}

TEST(Vsock, PortOfTheHostIsBehindTheSocketsPath) {
  EXPECT_STREQ(hostPortPath("/run/v", 4294967294).cStr(), "/run/v_4294967294");
}

}  // namespace
}  // namespace troupe
