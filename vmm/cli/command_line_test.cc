#include "vmm/cli/command_line.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/exception.h>

#include <sstream>
#include <string>

#include "vmm/words/user_error.h"

namespace troupe {
namespace {

constexpr kj::StringPtr WORDS[] = {"stats"_kj, "on"_kj, "off"_kj};

// A command with an option of each form, and what its words made of it.
class Bench {
 public:
  Bench() : line("try", "Tries.", "[FILE]", "troupe try --size 1G") {
    line.add(
        {"size", "SIZE", "how much", false, [this](kj::StringPtr word) { say("size", word); }});
    line.add({"disk", "DISK", "a disk", true, [this](kj::StringPtr word) { say("disk", word); }});
    line.add({"force", "", "no matter what", false, [this](kj::StringPtr) { say("force", ""); }});
    line.add({"balloon", "stats|on|off", "a balloon", false,
              [this](kj::StringPtr word) { say("balloon", word); }, WORDS});
  }

  // "size=1G file", or the error's text.
  std::string parse(kj::ArrayPtr<const kj::StringPtr> words) {
    auto failure = kj::runCatchingExceptions([&]() {
      auto arguments = line.parse(words, 1);
      for (auto argument : KJ_ASSERT_NONNULL(arguments))
        said += std::string(said.empty() ? "" : " ") + argument.cStr();
    });
    KJ_IF_MAYBE (exception, failure) return exception->getDescription().cStr();
    return said;
  }

  CommandLine line;

 private:
  void say(const char* name, kj::StringPtr word) {
    said += std::string(said.empty() ? "" : " ") + name + "=" + word.cStr();
  }
  std::string said;
};

template <typename... Words>
std::string parse(Words... words) {
  const kj::StringPtr all[] = {words...};
  return Bench().parse(all);
}

TEST(CommandLine, OptionsAndArgumentsMayMix) {
  EXPECT_EQ(parse("a.json", "--size=1G", "--disk", "a", "--disk", "b"),
            "size=1G disk=a disk=b a.json");
  EXPECT_EQ(parse("--", "--size"), "--size");
}

TEST(CommandLine, AValueThatMayBeLeftOutIsAWordOfItsOption) {
  EXPECT_EQ(parse("--balloon"), "balloon=");
  EXPECT_EQ(parse("--balloon", "stats"), "balloon=stats");
  EXPECT_EQ(parse("--balloon", "--force"), "balloon= force=");
}

TEST(CommandLine, ASlipInSuchAValueIsNotTakenForAFile) {
  EXPECT_EQ(parse("--balloon", "maybe"), "balloon=maybe");
  EXPECT_EQ(parse("--balloon", "vm.json"), "balloon= vm.json");
  EXPECT_EQ(parse("--balloon", "./vm"), "balloon= ./vm");
}

TEST(CommandLine, EachSlipIsOneErrorThatQuotesIt) {
  auto begins = [](const std::string& text, const std::string& expected) {
    EXPECT_EQ(text.substr(0, expected.size()), expected);
  };
  begins(parse("--sise", "1"),
         "TRP-cfg-002: troupe try has no option \"--sise\"; did you mean --size?");
  begins(parse("--size"), "TRP-cfg-003: --size needs a value: --size SIZE");
  begins(parse("--force=yes"), "TRP-cfg-003: --force takes no value, but was given \"yes\"");
  begins(parse("--size=1", "--size=2"), "TRP-cfg-005: --size is given twice");
  begins(parse("a", "b"),
         "TRP-cfg-004: troupe try takes only one argument, but was also given \"b\"");
}

TEST(CommandLine, HelpHasOneForm) {
  Bench bench;
  EXPECT_STREQ(bench.line.help().cStr(), R"(usage: troupe try [OPTIONS] [FILE]
Tries.

options:
  --size SIZE             how much
  --disk DISK             a disk
  --force                 no matter what
  --balloon stats|on|off  a balloon
  --json                  print JSON
  --help                  print this

example:
    troupe try --size 1G

exit codes: 0 done, 1 internal error, 2 wrong words or files, 3 the host lacks
something. docs/errors.md explains the TRP-... codes.
)");
}

TEST(CommandLine, HelpIsFilledToAnyTerminalsWidth) {
  Bench bench;
  bench.line.add({"long", "VALUE",
                  "so much to be said of this option that it takes a few lines, and "
                  "each of them begins below the first",
                  false, [](kj::StringPtr) {}});
  bench.line.epilog(
      "A GRAMMAR is "
      "first[,second=SECOND][,third=THIRD][,fourth=FOURTH][,fifth=FIFTH][,sixth=SIXTH] and so "
      "on.\n\n"
      "Another paragraph.");
  std::istringstream lines(bench.line.help().cStr());
  for (std::string line; std::getline(lines, line);)
    EXPECT_LE(line.size(), 80u) << line;
  auto help = std::string(bench.line.help().cStr());
  EXPECT_NE(help.find("\n                          "), std::string::npos) << help;
  EXPECT_NE(help.find("[,fourth=FOURTH]"), std::string::npos) << help;
  EXPECT_NE(help.find("\n\nAnother paragraph.\n"), std::string::npos) << help;
}

}  // namespace
}  // namespace troupe
