#include "sandbox/tool/policy_tool.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/profile_overlay.h"
#include "sandbox/tool/budget_table.h"
#include "sandbox/tool/call_text.h"
#include "sandbox/tool/diff.h"
#include "sandbox/tool/explain.h"
#include "sandbox/tool/json_text.h"
#include "sandbox/tool/lint.h"
#include "sandbox/tool/minijail_import.h"
#include "sandbox/tool/show.h"
#include "sandbox/tool/tool_error.h"

namespace troupe::sandbox {
namespace {

constexpr int USAGE = 2;

constexpr char HELP[] =
    R"(usage: troupe policy COMMAND [OPTIONS] ...
What the jails of Troupe's actors allow, and why.

  show ACTOR              fds, limits, and each stage's system calls with their
                          conditions, reasons and sources
  check FILE...           mistakes in profiles, as file:line:column, and how to
                          mend them
  diff A B                what B allows that A does not (+), and the reverse (-)
  explain ACTOR [STAGE] SYSCALL [ARGUMENT...]
                          whether a call is allowed, by which line, or what
                          would allow it
  budget [ACTOR...]       how many system calls each stage lets through
  import FILE             a minijail .policy file as a profile
  learn [--out DIR] -- troupe run ...
                          profiles from what actors do while filters only report
  coverage [--out FILE] -- COMMAND...
                          which rules were used by the VMs a command runs

ACTOR, A and B are the name of an actor or the path of a profile, which has a
'/' or a '.'. STAGE is start, ready, run or thread:NAME; every stage unless
given. An ARGUMENT is a number, constants joined by '|', the name of an fd of
the profile (disk, kick[3]), or _ for anything.

options:
  --json                  print JSON
  --includes DIR          where the includes of profiles given by path lie;
                          otherwise the current folder, then those built in
  --profile-dir DIR       as of `troupe run`: an actor's profile is that of DIR,
                          if it has one; `check` without FILE then checks all of
                          them
  --help                  print this

example:
    troupe policy explain blk run ioctl disk BLKGETSIZE64

exit codes: 0 done, 1 internal error, 2 wrong words, profiles or files.
docs/errors.md explains the TRP-... codes.
)";

std::string list(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts)
    all += (all.empty() ? "" : ", ") + text;
  return all;
}

// A profile given by its path: itself, then its includes in a folder or, where it has none of this
// name, among those built in.
class GivenFiles final: public ProfileFiles {
 public:
  GivenFiles(const std::string& path, const std::string& folder, const ProfileFiles& builtIn)
      : path(path), folder(folder), builtIn(builtIn) {}

  std::optional<std::string> read(const std::string& name) const override {
    if (name == path) return FolderFiles("").read(name);
    if (auto text = folder.read(name)) return text;
    return builtIn.read(name);
  }

 private:
  const std::string& path;
  FolderFiles folder;
  const ProfileFiles& builtIn;
};

class Tool {
 public:
  Tool(const PolicyCatalogue& catalogue, const std::vector<std::string>& words)
      : catalogue(catalogue) {
    readOptions(words);
  }

  void run() {
    if (help || words.empty() || words[0] == "help") {
      if (!help && words.empty()) {
        throw ToolError("TRP-cfg-004", "no command is given\n  see: troupe policy --help");
      }
      result.out = HELP;
      return;
    }
    std::string command = words[0];
    words.erase(words.begin());
    if (command == "show") return show();
    if (command == "check") return check();
    if (command == "diff") return diff();
    if (command == "explain") return explain();
    if (command == "budget") return budget();
    if (command == "import") return import();
    std::vector<std::string> commands{"show",   "check",  "diff",  "explain",
                                      "budget", "import", "learn", "coverage"};
    throw ToolError("TRP-cfg-001", "there is no command " + quoted(command) +
                                       didYouMean(command, commands) + "; the commands are " +
                                       list(commands));
  }

  ToolResult result{0, "", ""};

 private:
  void readOptions(const std::vector<std::string>& given) {
    bool onlyWords = false;
    for (size_t i = 0; i < given.size(); i++) {
      const std::string& word = given[i];
      bool negative = word.size() > 1 && isdigit(static_cast<unsigned char>(word[1]));
      if (onlyWords || word.size() < 2 || word[0] != '-' || negative) {
        words.push_back(word);
      } else if (word == "--") {
        onlyWords = true;
      } else if (word == "--json") {
        json = true;
      } else if (word == "--help" || word == "-h") {
        help = true;
      } else if (!takeFolder("--includes", includes, given, i) &&
                 !takeFolder("--profile-dir", profileDir, given, i)) {
        throw ToolError("TRP-cfg-002",
                        "there is no option " + quoted(word) +
                            "; there are --json, --includes, --profile-dir and --help");
      }
    }
    struct stat info;
    if (!profileDir.empty() && (stat(profileDir.c_str(), &info) < 0 || !S_ISDIR(info.st_mode)))
      throw ToolError("TRP-cfg-033", "--profile-dir " + quoted(profileDir) + " is no folder");
  }

  // Whether the word at `i` is option `name`, with the path of a folder after it or behind a '='.
  static bool takeFolder(const std::string& name, std::string& folder,
                         const std::vector<std::string>& given, size_t& i) {
    const std::string& word = given[i];
    bool joined = word.compare(0, name.size() + 1, name + "=") == 0;
    if (word != name && !joined) return false;
    if (!joined && i + 1 == given.size()) {
      throw ToolError("TRP-cfg-003", name + " needs the path of a folder");
    }
    folder = joined ? word.substr(name.size() + 1) : given[++i];
    return true;
  }

  void require(size_t least, size_t most, const std::string& usage) {
    if (words.size() >= least && words.size() <= most) return;
    throw ToolError("TRP-cfg-004", (words.size() < least ? "too few" : "too many") +
                                       std::string(" arguments: troupe policy ") + usage);
  }

  PolicyReading examine(const std::string& name) {
    for (const CataloguedActor& actor : catalogue.actors) {
      if (actor.name == name) return examineActor(actor);
    }
    if (name.find_first_of("./") == std::string::npos) {
      std::vector<std::string> names;
      for (const CataloguedActor& actor : catalogue.actors)
        names.push_back(actor.name);
      throw ToolError("TRP-cfg-006", "there is no actor " + quoted(name) + didYouMean(name, names) +
                                         "; there are " + list(names) +
                                         ", and the path of a profile has a '/' or a '.'");
    }
    return examinePolicy(GivenFiles(name, includes, catalogue.files), name);
  }

  bool isOverridden(const CataloguedActor& actor) const {
    return !profileDir.empty() && FolderFiles(profileDir).read(actor.path);
  }

  PolicyReading examineActor(const CataloguedActor& actor) const {
    if (!isOverridden(actor)) return examinePolicy(catalogue.files, actor.path);
    FolderFiles over(profileDir);
    return examinePolicy(OverlaidFiles(over, profileDir, catalogue.files), actor.path);
  }

  void nameAllOverridden() {
    for (const CataloguedActor& actor : catalogue.actors) {
      if (isOverridden(actor)) words.push_back(actor.name);
    }
    if (words.empty()) {
      throw ToolError("TRP-cfg-033", "--profile-dir " + quoted(profileDir) +
                                         " has no actor's profile; that of rng lies there as "
                                         "devices/rng/rng.profile, say");
    }
  }

  Policy read(const std::string& name) {
    PolicyReading reading = examine(name);
    if (reading.errors.empty()) return std::move(reading.policy);
    for (const ProfileError& error : reading.errors)
      result.err += std::string(error.what()) + "\n";
    throw ToolError("TRP-cfg-110", wrong(name, reading.errors.size()));
  }

  static std::string wrong(const std::string& name, size_t errors) {
    return "profile " + quoted(name) + " has " + std::to_string(errors) +
           (errors == 1 ? " error" : " errors");
  }

  void show() {
    require(1, 1, "show ACTOR");
    Policy policy = read(words[0]);
    result.out = json ? showPolicyJson(policy) : showPolicy(policy);
  }

  void check() {
    if (words.empty() && !profileDir.empty()) nameAllOverridden();
    require(1, 1000, "check FILE...");
    size_t errors = 0, warnings = 0;
    std::vector<std::string> list;
    auto tell = [&](const ProfileError& one, const std::string& kind) {
      result.out += describe(one.where) + ": " + kind + ": " + one.message + "\n";
      JsonObject row;
      row.add("where", describe(one.where)).add("kind", kind).add("message", one.message);
      list.push_back(row.text());
    };
    for (const std::string& name : words) {
      PolicyReading reading = examine(name);
      if (reading.errors.empty()) addFilterError(reading);
      for (const ProfileError& error : reading.errors)
        tell(error, "error");
      errors += reading.errors.size();
      if (!reading.errors.empty()) continue;
      auto found = lint(reading.policy);
      for (const ProfileError& warning : found)
        tell(warning, "warning");
      warnings += found.size();
    }
    auto count = [](size_t n, const std::string& what) {
      return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
    };
    result.out += count(errors, "error") + ", " + count(warnings, "warning") + "\n";
    if (json) result.out = jsonArray(list) + "\n";
    if (errors > 0) result.exit = USAGE;
  }

  // Of the first filter that its rules make too long for the kernel.
  static void addFilterError(PolicyReading& reading) {
    try {
      for (const PolicyFilter& filter : reading.policy.filters)
        buildProgram(filter);
    } catch (const ProfileError& error) {
      reading.errors.push_back(error);
    }
  }

  void diff() {
    require(2, 2, "diff A B");
    Policy before = read(words[0]), after = read(words[1]);
    std::string text = diffPolicies(before, after);
    if (json) {
      JsonObject both;
      both.add("before", before.path).add("after", after.path).add("difference", text);
      result.out = both.text() + "\n";
      return;
    }
    result.out = text.empty() ? "no difference\n"
                              : "- " + before.actor + ", " + before.path + "\n+ " + after.actor +
                                    ", " + after.path + "\n" + text;
  }

  void explain() {
    require(2, 9, "explain ACTOR [STAGE] SYSCALL [ARGUMENT...]");
    Policy policy = read(words[0]);
    auto stages = stagesOf(policy);
    size_t at = 1;
    if (std::count(stages.begin(), stages.end(), words[1]) != 0) {
      stages = {words[1]};
      at = 2;
    } else if (words[1].compare(0, 7, "thread:") == 0 || words[1] == "run" || words[1] == "ready") {
      throw ToolError("TRP-cfg-006", policy.actor + " has no stage " + quoted(words[1]) +
                                         didYouMean(words[1], stages) + "; it has " + list(stages));
    }
    if (at == words.size()) {
      throw ToolError("TRP-cfg-004",
                      "too few arguments: troupe policy explain ACTOR [STAGE] SYSCALL "
                      "[ARGUMENT...]");
    }
    if (words.size() - at > 7) throw ToolError("TRP-cfg-004", "a call has at most 6 arguments");
    try {
      std::string name;
      int syscall = parseSyscall(words[at], name);
      std::vector<GivenArgument> arguments;
      for (size_t i = at + 1; i < words.size(); i++)
        arguments.push_back(parseArgument(policy, words[i]));
      std::vector<std::string> rows;
      for (const std::string& stage : stages) {
        std::string text = explainText(policy, stage, name, syscall, arguments);
        result.out += text;
        rows.push_back(JsonObject().add("stage", stage).add("text", text).text());
      }
      if (json) result.out = jsonArray(rows) + "\n";
    } catch (const std::invalid_argument& error) {
      throw ToolError("TRP-cfg-006", error.what());
    }
  }

  void budget() {
    std::vector<Policy> policies;
    if (words.empty()) {
      for (const CataloguedActor& actor : catalogue.actors)
        words.push_back(actor.name);
    }
    for (const std::string& name : words)
      policies.push_back(read(name));
    result.out = json ? budgetJson(policies) : budgetTable(policies);
  }

  void import() {
    require(1, 1, "import FILE");
    std::optional<std::string> text;
    try {
      text = FolderFiles("").read(words[0]);
    } catch (const ProfileError& error) {
      throw ToolError("TRP-cfg-111", quoted(words[0]) + " " + error.message);
    }
    if (!text) throw ToolError("TRP-cfg-111", "there is no file " + quoted(words[0]));
    if (text->size() > MAX_PROFILE_BYTES) {
      throw ToolError("TRP-cfg-111", quoted(words[0]) +
                                         " is longer than 262144 bytes; a minijail policy is a "
                                         "text of a few pages");
    }
    ImportResult imported = importMinijail(*text, words[0]);
    if (imported.rules == 0) {
      throw ToolError("TRP-cfg-111", quoted(words[0]) +
                                         " has no line that can be taken over; a minijail policy "
                                         "has lines such as \"read: 1\"");
    }
    result.out = imported.profile;
    if (json) {
      JsonObject object;
      object.add("profile", imported.profile).addNumber("leftOut", imported.leftOut);
      result.out = object.text() + "\n";
      return;
    }
    if (imported.leftOut > 0) {
      result.err = "troupe: " + std::to_string(imported.leftOut) +
                   " lines were left out; the profile's comments say why\n";
    }
  }

  const PolicyCatalogue& catalogue;
  std::vector<std::string> words;
  std::string includes;
  std::string profileDir;
  bool json = false;
  bool help = false;
};

}  // namespace

ToolResult policyTool(const PolicyCatalogue& catalogue, const std::vector<std::string>& words) {
  ToolResult failed{USAGE, "", ""};
  try {
    Tool tool(catalogue, words);
    try {
      tool.run();
      return tool.result;
    } catch (const ToolError& error) {
      failed.err = tool.result.err + "troupe: " + error.what() + "\n";
    }
  } catch (const ToolError& error) {
    failed.err = "troupe: " + std::string(error.what()) + "\n";
  }
  return failed;
}

}  // namespace troupe::sandbox
