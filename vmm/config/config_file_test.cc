#include "vmm/config/config_file.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

// The first line of the error `json` gives, or "" when it is accepted.
std::string errorOf(kj::StringPtr json) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  KJ_IF_MAYBE (exception,
               kj::runCatchingExceptions([&]() { parseConfig(json, "c.json", config); })) {
    std::string text = exception->getDescription().cStr();
    return text.substr(0, text.find('\n'));
  }
  return "";
}

TEST(ConfigFile, EveryKeyIsRead) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  parseConfig(R"({"name": "n", "kernel": "k", "initrd": "i", "cmdline": "", "cpus": 3,
                  "memory": "1G", "serial": "file=s", "rng": "off",
                  "console": [{"where": "pty"}, {"where": "socket=p", "port": true}],
                  "cpu-mask": ["avx2"], "jail": "off",
                  "disk": [{"path": "a", "ro": true, "id": "x", "format": "raw", "direct": true,
                            "queues": 4}],
                  "vsock": {"cid": 7, "socket": "v", "forward": ["22:ssh"]}})"_kj,
              "c.json", config);
  EXPECT_EQ(config.getVsock().getCid(), 7);
  EXPECT_STREQ(config.getVsock().getSocket().cStr(), "v");
  EXPECT_STREQ(config.getVsock().getForward()[0].cStr(), "22:ssh");
  EXPECT_STREQ(config.getName().cStr(), "n");
  EXPECT_TRUE(config.hasCmdline());
  EXPECT_EQ(config.getCpus(), 3);
  EXPECT_STREQ(config.getCpuMask()[0].cStr(), "avx2");
  EXPECT_STREQ(config.getConsoles()[0].getWhere().cStr(), "pty");
  EXPECT_TRUE(config.getConsoles()[1].getPort());
  EXPECT_STREQ(config.getConsoles()[1].getReplay().cStr(), "on");
  auto disk = config.getDisks()[0];
  EXPECT_STREQ(disk.getPath().cStr(), "a");
  EXPECT_TRUE(disk.getRo());
  EXPECT_TRUE(disk.getDirect());
  EXPECT_EQ(disk.getQueues(), 4);
}

TEST(ConfigFile, WhatIsLeftOutKeepsItsDefault) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  parseConfig(R"({"kernel": "k"})"_kj, "c.json", config);
  EXPECT_EQ(config.getCpus(), 1);
  EXPECT_STREQ(config.getMemory().cStr(), "512M");
  EXPECT_FALSE(config.hasCmdline());
}

TEST(ConfigFile, AnUnknownKeyIsRefusedWithTheNearest) {
  EXPECT_EQ(errorOf(R"({"kernal": "k"})"),
            "TRP-cfg-009: \"c.json\": unknown key \"kernal\"; did you mean kernel?");
  EXPECT_EQ(errorOf(R"({"disk": [{"pth": "a"}]})"),
            "TRP-cfg-009: \"c.json\": unknown key \"disk[0].pth\"; did you mean path?");
}

TEST(ConfigFile, WhatIsNotJsonIsSaidWithItsPlace) {
  auto notJson = [](kj::StringPtr json) {
    std::string error = errorOf(json), start = "TRP-cfg-008: \"c.json\" is not sound JSON: ";
    return error.substr(0, start.size()) == start ? error.substr(start.size()) : error;
  };
  EXPECT_EQ(notJson(R"({"kernel": "k",})"), "\"}\" is not expected at line 1, column 16");
  EXPECT_EQ(notJson("{\n  \"kernel\": \"k\"\n  \"cpus\": 2\n}"),
            "a quotation mark is not expected at line 3, column 3");
  EXPECT_EQ(notJson("{'kernel': 1}"), "\"'\" is not expected at line 1, column 2");
  EXPECT_EQ(notJson("{\"name\": \"ä\", kernel: 1}"),
            "\"kernel\" is not expected at line 1, column 15");
  EXPECT_EQ(notJson("{} {}"), "\"{\" is not expected at line 1, column 4");
  EXPECT_EQ(notJson("{\"cpus\": tru }"), "\"tru\" is not expected at line 1, column 10");
  // However long what is sound before it.
  std::string disks;
  for (int i = 0; i < 300; i++)
    disks += "{\"path\": \"a\", \"ro\": true, \"queues\": 12},\n";
  EXPECT_EQ(notJson(("{\"disk\": [\n" + disks + "{\"path\": \"a\" \"ro\"}]}").c_str()),
            "a quotation mark is not expected at line 302, column 14");
  EXPECT_EQ(notJson("{\n"), "it ends at line 2, column 1, before it is complete");
}

TEST(ConfigFile, TheFieldsOwnNameIsNoKey) {
  EXPECT_EQ(errorOf(R"({"cpuMask": []})").substr(0, 11), "TRP-cfg-009");
  EXPECT_EQ(errorOf(R"({"disks": []})").substr(0, 11), "TRP-cfg-009");
}

TEST(ConfigFile, AKeyThatStandsTwiceIsRefused) {
  EXPECT_EQ(errorOf(R"({"cpus": 1, "cpus": 2})"),
            "TRP-cfg-009: \"c.json\": key \"cpus\" stands there twice");
}

TEST(ConfigFile, WrongTypesAreRefused) {
  EXPECT_EQ(
      errorOf(R"({"cpus": "2"})"),
      "TRP-cfg-010: \"c.json\": \"cpus\" expects a whole number from 0 to 4294967295, not text "
      "\"2\"");
  for (auto json :
       {R"({"cpus": -1})", R"({"cpus": 1.5})", R"({"cpus": 1e300})", R"({"memory": 512})",
        R"({"disk": {}})", R"({"disk": ["a"]})", R"({"disk": [{"ro": "yes"}]})",
        R"({"vsock": {"cid": "7"}})", R"({"vsock": {"cid": 4294967296}})",
        R"({"vsock": {"forward": [22]}})", R"({"kernel": null})", R"([])", R"("x")",
        R"({"cpu-mask": [1]})", R"({"kernel": "a\u0000b"})"}) {
    EXPECT_EQ(errorOf(json).substr(0, 11), "TRP-cfg-010") << json;
  }
}

TEST(ConfigFile, WhatIsNoJsonIsRefused) {
  for (auto json : {"", "{", "{\"a\": }", "nonsense", "{} {}", "{'kernel': 1}"}) {
    EXPECT_EQ(errorOf(json).substr(0, 11), "TRP-cfg-008") << json;
  }
}

TEST(ConfigFile, DeepNestingIsRefused) {
  std::string deep(100000, '[');
  EXPECT_EQ(errorOf(deep.c_str()).substr(0, 11), "TRP-cfg-008");
}

TEST(ConfigFile, EscapesOfEveryKindAreRead) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  parseConfig(R"({"kernel": "\u00e4 \u00E4 \ud83d\ude00 \u0022 \u005c \\u00e4 \u001b"})"_kj,
              "c.json", config);
  EXPECT_STREQ(config.getKernel().cStr(), "\xc3\xa4 \xc3\xa4 \xf0\x9f\x98\x80 \" \\ \\u00e4 \x1b");
}

TEST(ConfigFile, MalformedEscapesAreRefused) {
  for (auto json : {R"({"kernel": "\u00g0"})", R"({"kernel": "\ud83d"})", R"({"kernel": "\u00"})",
                    R"({"kernel": "\ude00\ud83d"})"}) {
    EXPECT_EQ(errorOf(json).substr(0, 11), "TRP-cfg-008") << json;
  }
}

TEST(ConfigFile, WhatIsPrintedReadsBackAlike) {
  capnp::MallocMessageBuilder first;
  auto config = first.initRoot<VmConfig>();
  parseConfig(
      R"({"kernel": "k\"\n\u00e4\u001f", "disk": [{"path": "a,b"}], "cpu-mask": ["avx"]})"_kj,
      "c.json", config);
  auto printed = printConfig(config);
  capnp::MallocMessageBuilder second;
  auto again = second.initRoot<VmConfig>();
  parseConfig(printed, "printed", again);
  EXPECT_EQ(printConfig(again), printed);
  EXPECT_STREQ(again.getKernel().cStr(), "k\"\n\xc3\xa4\x1f");
}

}  // namespace
}  // namespace troupe
