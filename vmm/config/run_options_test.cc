#include "vmm/config/run_options.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "vmm/config/config_file.h"
#include "vmm/config/vm_plan.h"

namespace troupe {
namespace {

RunRequest parse(std::initializer_list<kj::StringPtr> words) {
  return parseRunOptions(kj::arrayPtr(words.begin(), words.size()));
}

// The first line of the error of these options, checked as a whole; "" when there is none.
std::string errorOf(std::initializer_list<kj::StringPtr> words) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(
                              [&]() { planVm(parse(words).config->getRoot<VmConfig>()); })) {
    std::string text = exception->getDescription().cStr();
    return text.substr(0, text.find('\n'));
  }
  return "";
}

std::string codeOf(std::initializer_list<kj::StringPtr> words) {
  return errorOf(words).substr(0, 11);
}

TEST(RunOptions, EveryOptionReachesTheConfiguration) {
  auto request = parse({"--kernel",
                        "k",
                        "--initrd=i",
                        "--cmdline",
                        "+quiet",
                        "--cpus",
                        "2",
                        "--memory",
                        "1G",
                        "--disk",
                        "a",
                        "--disk",
                        "b,ro,id=x,queues=2,direct",
                        "--console",
                        "pty",
                        "--console",
                        "socket=p,name=agent,port",
                        "--serial",
                        "file=s",
                        "--rng",
                        "off",
                        "--name",
                        "n",
                        "--cpu-mask",
                        "avx2,rdrand",
                        "--jail",
                        "off"});
  auto config = request.config->getRoot<VmConfig>();
  EXPECT_EQ(request.action, RunRequest::Action::RUN);
  EXPECT_STREQ(config.getInitrd().cStr(), "i");
  EXPECT_EQ(config.getCpus(), 2);
  EXPECT_EQ(config.getDisks().size(), 2);
  EXPECT_TRUE(config.getDisks()[1].getRo());
  EXPECT_EQ(config.getDisks()[1].getQueues(), 2);
  EXPECT_EQ(config.getCpuMask().size(), 2);
  EXPECT_EQ(config.getConsoles().size(), 2);
  EXPECT_STREQ(config.getConsoles()[0].getWhere().cStr(), "pty");
  EXPECT_STREQ(config.getConsoles()[1].getName().cStr(), "agent");
  auto plan = planVm(config);
  EXPECT_STREQ(plan.cmdline.cStr(), "console=ttyS0 quiet");
  EXPECT_STREQ(plan.disks[0].id.cStr(), "disk0");
  EXPECT_STREQ(plan.disks[1].id.cStr(), "x");
}

TEST(RunOptions, DefaultsAreThoseDocumented) {
  auto plan = planVm(parse({"--kernel", "k"}).config->getRoot<VmConfig>());
  EXPECT_EQ(plan.cpus, 1);
  EXPECT_EQ(plan.memoryBytes, 512u << 20);
  EXPECT_TRUE(plan.rng);
  EXPECT_EQ(plan.serial.kind, Endpoint::Kind::STDIO);
  EXPECT_EQ(plan.consoles.size(), 0);
  EXPECT_STREQ(plan.cmdline.cStr(), "console=ttyS0");
  EXPECT_EQ(plan.name.size(), 0);
  EXPECT_EQ(plan.jail, sandbox::Jail::ON);
}

TEST(RunOptions, ACommaInADiskPathIsWrittenTwice) {
  auto request = parse({"--kernel", "k", "--disk", "a,,b.img,ro"});
  auto disk = request.config->getRoot<VmConfig>().getDisks()[0];
  EXPECT_STREQ(disk.getPath().cStr(), "a,b.img");
  EXPECT_TRUE(disk.getRo());
}

TEST(RunOptions, AnUnknownOptionIsRefusedWithTheNearest) {
  EXPECT_EQ(errorOf({"--kernl", "k"}),
            "TRP-cfg-002: troupe run has no option \"--kernl\"; did you mean --kernel?");
}

TEST(RunOptions, MistakesHaveTheirCodes) {
  EXPECT_EQ(codeOf({}), "TRP-cfg-011");
  EXPECT_EQ(codeOf({"--kernel"}), "TRP-cfg-003");
  EXPECT_EQ(codeOf({"--print-config=yes"}), "TRP-cfg-003");
  EXPECT_EQ(codeOf({"--kernel", "a", "--kernel", "b"}), "TRP-cfg-005");
  EXPECT_EQ(codeOf({"a.json", "b.json"}), "TRP-cfg-004");
  EXPECT_EQ(codeOf({"/nonexistent.json"}), "TRP-cfg-007");
  EXPECT_EQ(codeOf({"/"}), "TRP-cfg-007");
  for (auto cpus : {"0", "256", "10000", "-1", "abc", "4294967296", "1.5"}) {
    EXPECT_EQ(codeOf({"--kernel", "k", "--cpus", cpus}), "TRP-cfg-013") << cpus;
  }
  for (auto memory : {"0", "1", "1M", "3M", "M", "12X", "-2M", "99999999999T", "1.5G", "2 M"}) {
    EXPECT_EQ(codeOf({"--kernel", "k", "--memory", memory}), "TRP-cfg-012") << memory;
  }
  for (auto console : {"tty", "file", "file=", "socket=", "stdio=x"}) {
    EXPECT_EQ(codeOf({"--kernel", "k", "--serial", console}), "TRP-cfg-006") << console;
  }
  EXPECT_EQ(codeOf({"--kernel", "k", "--serial", "pty"}), "TRP-cfg-006");
  EXPECT_EQ(codeOf({"--kernel", "k", "--console", "stdio"}), "TRP-cfg-016");
  EXPECT_EQ(codeOf({"--kernel", "k", "--rng", "yes"}), "TRP-cfg-006");
  for (auto name : {".x", "a/b", "ä", "a b", "-x"}) {
    EXPECT_EQ(codeOf({"--kernel", "k", "--name", name}), "TRP-cfg-017") << name;
  }
  EXPECT_EQ(codeOf({"--kernel", "k", "--cpu-mask", "avx2,,x"}), "TRP-cfg-032");
}

// `--disk "$DISK"` of a script in which DISK is not set.
TEST(RunOptions, AnEmptyValueIsAMistakeWhereItSaysNothing) {
  for (auto option : {"--kernel", "--initrd", "--cpus", "--memory", "--disk", "--net", "--console",
                      "--serial", "--rng", "--vsock", "--host-memory", "--name", "--jail",
                      "--profile-dir", "--on-reboot", "--metrics", "--record", "--record-limit"}) {
    EXPECT_EQ(codeOf({option, ""}), "TRP-cfg-003") << option;
  }
  for (auto option : {"--cmdline", "--cpu-mask"}) {
    EXPECT_EQ(codeOf({"--kernel", "k", option, ""}), "") << option;
  }
}

TEST(RunOptions, MistakesInADiskHaveTheirCodes) {
  auto disk = [](kj::StringPtr text) { return codeOf({"--kernel", "k", "--disk", text}); };
  EXPECT_EQ(disk("a,wr"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,ro,rw"), "TRP-cfg-005");
  EXPECT_EQ(disk("a,"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,ro=on"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,id"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,queues=0"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,queues=17"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,queues=x"), "TRP-cfg-014");
  EXPECT_EQ(disk("a,format=vmdk"), "TRP-cfg-006");
  EXPECT_EQ(disk("a,ro,ro"), "TRP-cfg-005");
  EXPECT_EQ(disk("a,id=123456789012345678901"), "TRP-cfg-015");
  EXPECT_EQ(codeOf({"--kernel", "k", "--disk", "a", "--disk", "b,id=disk0"}), "TRP-cfg-015");
}

TEST(RunOptions, TooManyDisksAreRefused) {
  kj::Vector<kj::StringPtr> words;
  words.add("--kernel");
  words.add("k");
  for (uint32_t i = 0; i < MOST_DISKS + 1; i++)
    words.add("--disk=a");
  auto request = parseRunOptions(words);
  EXPECT_TRUE(kj::runCatchingExceptions([&]() { planVm(request.config->getRoot<VmConfig>()); }) !=
              nullptr);
}

TEST(RunOptions, HelpNamesEveryOption) {
  auto request = parse({"--help"});
  ASSERT_EQ(request.action, RunRequest::Action::HELP);
  std::string help = request.help.cStr();
  for (auto option :
       {"--kernel", "--initrd", "--cmdline", "--cpus", "--memory", "--disk", "--console",
        "--serial", "--rng", "--name", "--cpu-mask", "--jail", "--print-config"}) {
    EXPECT_NE(help.find(option), std::string::npos) << option;
  }
}

TEST(RunOptions, AHostileWordCannotReachTheTerminal) {
  EXPECT_EQ(errorOf({"--\x1b[2J"}).find('\x1b'), std::string::npos);
}

TEST(SpellOut, IsReadBackAsTheSameVm) {
  auto request = parse({"--kernel", "k", "--cmdline", "+quiet", "--disk", "a,ro"});
  auto config = request.config->getRoot<VmConfig>();
  spellOut(config);
  auto printed = printConfig(config);
  capnp::MallocMessageBuilder message;
  auto again = message.initRoot<VmConfig>();
  parseConfig(printed, "printed", again);
  auto plan = planVm(again);
  EXPECT_STREQ(plan.cmdline.cStr(), "console=ttyS0 quiet");
  EXPECT_TRUE(plan.disks[0].readOnly);
  spellOut(again);
  EXPECT_EQ(printConfig(again), printed);
}

}  // namespace
}  // namespace troupe
