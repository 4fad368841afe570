#include "vmm/config/console_option.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/vector.h>

#include <initializer_list>
#include <string>

#include "vmm/config/console_plan.h"

namespace troupe {
namespace {

kj::Array<ConsolePlan> planned(std::initializer_list<kj::StringPtr> texts,
                               Endpoint serial = {Endpoint::Kind::FILE, kj::str("s")}) {
  capnp::MallocMessageBuilder message;
  auto consoles = message.initRoot<VmConfig>().initConsoles(texts.size());
  uint32_t i = 0;
  for (auto text : texts)
    parseConsole(text, consoles[i++]);
  return planConsoles(consoles.asReader(), serial);
}

// The first line of the error; "" when there is none.
std::string errorOf(std::initializer_list<kj::StringPtr> texts,
                    Endpoint::Kind serial = Endpoint::Kind::FILE) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 planned(texts, {serial, kj::str("s")});
               })) {
    std::string description = exception->getDescription().cStr();
    return description.substr(0, description.find('\n'));
  }
  return "";
}

std::string codeOf(std::initializer_list<kj::StringPtr> texts) {
  return errorOf(texts).substr(0, 11);
}

TEST(ConsoleOption, EveryPartReachesThePlan) {
  auto plans = planned({"socket=/a,,b.sock,name=log-1,size=132x43,replay=off", "file=f,port"});
  EXPECT_EQ(plans[0].where.kind, Endpoint::Kind::SOCKET);
  EXPECT_STREQ(plans[0].where.path.cStr(), "/a,b.sock");
  EXPECT_STREQ(plans[0].name.cStr(), "log-1");
  EXPECT_FALSE(plans[0].plain);
  EXPECT_EQ(plans[0].size, ConsolePlan::Size::SAID);
  EXPECT_EQ(plans[0].columns, 132);
  EXPECT_EQ(plans[0].rows, 43);
  EXPECT_FALSE(plans[0].replay);
  EXPECT_TRUE(plans[1].plain);
  EXPECT_TRUE(plans[1].replay);
  EXPECT_EQ(plans[1].size, ConsolePlan::Size::NONE);
}

TEST(ConsoleOption, PartsMayComeInAnyOrder) {
  auto plans = planned({"port,name=agent,socket=a"});
  EXPECT_STREQ(plans[0].where.path.cStr(), "a");
  EXPECT_STREQ(plans[0].name.cStr(), "agent");
}

TEST(ConsoleOption, OnlyAConsoleOnStdioHasTheTerminalsSize) {
  EXPECT_EQ(planned({"stdio"})[0].size, ConsolePlan::Size::OF_THE_TERMINAL);
  EXPECT_EQ(planned({"stdio,size=off"})[0].size, ConsolePlan::Size::NONE);
  EXPECT_EQ(planned({"stdio,port"})[0].size, ConsolePlan::Size::NONE);
  EXPECT_EQ(planned({"pty"})[0].size, ConsolePlan::Size::NONE);
}

TEST(ConsoleOption, LinuxNumbersConsolesAlone) {
  auto plans = planned({"file=a,port", "file=b", "file=c,port,name=x", "file=d"});
  EXPECT_STREQ(guestsNameOf(plans, 0).cStr(), "port 0");
  EXPECT_STREQ(guestsNameOf(plans, 1).cStr(), "console hvc0");
  EXPECT_STREQ(guestsNameOf(plans, 2).cStr(), "port \"x\"");
  EXPECT_STREQ(guestsNameOf(plans, 3).cStr(), "console hvc1");
}

TEST(ConsoleOption, MalformedPartsAreRefused) {
  for (auto text :
       {"", "tty", "stdi", "file", "file=", "socket=", "stdio=x", "name=a", "pty=1",
        "pty,name=", "pty,port=on", "pty,kind=x", "pty,", "pty,stdio", "file=a,socket=b",
        "pty,replay=off", "file=a,replay=off", "pty,port,size=80x25"}) {
    EXPECT_EQ(codeOf({text}), "TRP-con-010") << text;
  }
  for (auto size : {"", "80", "x", "80x", "x25", "0x25", "80x0", "65536x1", "80x25x2", "-1x2",
                    "80 x 25", "on", "8 0x25"}) {
    EXPECT_EQ(codeOf({kj::str("pty,size=", size)}), "TRP-con-010") << size;
  }
  EXPECT_EQ(codeOf({"pty,pty"}), "TRP-cfg-005");
  EXPECT_EQ(codeOf({"pty,port,port"}), "TRP-cfg-005");
  EXPECT_EQ(codeOf({"socket=a,replay=maybe"}), "TRP-cfg-006");
  EXPECT_EQ(errorOf({"stdoi"}),
            "TRP-con-010: --console \"stdoi\": unknown part \"stdoi\"; did you mean stdio?; its "
            "parts are stdio, pty, file=PATH or socket=PATH, and name=NAME, port, size=80x25 or "
            "off, and replay=on or off; a comma in a path is written twice");
}

TEST(ConsoleOption, NamesArePlainAndEachIsThereOnce) {
  auto longest = kj::str("pty,name=", kj::repeat('n', LONGEST_CONSOLE_NAME));
  EXPECT_EQ(codeOf({longest}), "");
  EXPECT_EQ(codeOf({kj::str(longest, "n")}), "TRP-con-011");
  for (auto name : {"a/b", "..", ".x", "a b", "\xc3\xa4", "a\n"}) {
    EXPECT_EQ(codeOf({kj::str("pty,name=", name)}), "TRP-con-011") << name;
  }
  EXPECT_EQ(codeOf({"pty", "pty"}), "");
  EXPECT_EQ(codeOf({"pty,name=a", "pty,name=b"}), "");
  EXPECT_EQ(
      errorOf({"pty,name=a", "file=f", "socket=x,name=a"}),
      "TRP-con-011: --console pty and --console \"socket=x\" have the same name \"a\"; a name "
      "is that of one port");
}

TEST(ConsoleOption, TwoCannotHaveOnePlace) {
  EXPECT_EQ(errorOf({"stdio", "pty", "stdio,port"}).substr(0, 11), "TRP-cfg-016");
  EXPECT_EQ(errorOf({"stdio"}, Endpoint::Kind::STDIO).substr(0, 11), "TRP-cfg-016");
  EXPECT_EQ(errorOf({"socket=x", "socket=x"}),
            "TRP-cfg-026: --console \"socket=x\" and --console \"socket=x\" want the same socket "
            "\"x\"; each has its own");
  EXPECT_EQ(errorOf({"socket=s"}, Endpoint::Kind::SOCKET).substr(0, 11), "TRP-cfg-026");
  EXPECT_EQ(codeOf({"file=/dev/null", "file=/dev/null"}), "");
}

TEST(ConsoleOption, ThereAreEightAtMost) {
  EXPECT_EQ(codeOf({"pty", "pty", "pty", "pty", "pty", "pty", "pty", "pty"}), "");
  EXPECT_EQ(errorOf({"pty", "pty", "pty", "pty", "pty", "pty", "pty", "pty", "pty"}),
            "TRP-con-012: 9 consoles are asked for; a VM has at most 8");
}

}  // namespace
}  // namespace troupe
