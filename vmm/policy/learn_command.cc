#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>

#include "sandbox/policy.h"
#include "sandbox/tool/call_site.h"
#include "sandbox/tool/json_text.h"
#include "sandbox/tool/learn.h"
#include "sandbox/tool/profile_text.h"
#include "sandbox/tool/text_table.h"
#include "sandbox/tool/tool_error.h"
#include "vmm/policy/command_words.h"
#include "vmm/policy/watch_commands.h"
#include "vmm/policy/watched_run.h"

namespace troupe {
namespace {

using sandbox::CallRecord;
using sandbox::CataloguedActor;
using sandbox::Learned;
using sandbox::ProfileFiles;
using sandbox::quoted;
using sandbox::ToolError;

constexpr char HELP[] =
    "usage: troupe policy learn [OPTIONS] -- troupe run ...\n"
    "Runs a VM whose filters report what they would refuse, and let it be; writes\n"
    "profiles that allow it, each rule with what needed it.\n"
    "\n"
    "options:\n"
    "  --out DIR               where profiles are written, in the folders they have\n"
    "                          in the tree; ./learned unless given. What is there\n"
    "                          from before is widened\n"
    "  --from-scratch          begin with fds and layers alone, and report every\n"
    "                          call; otherwise begin with the profiles built in, and\n"
    "                          find what they lack\n"
    "  --json                  print JSON; what the command prints goes to standard\n"
    "                          error then\n"
    "  --help                  print this\n"
    "\n"
    "Namespaces, root, capabilities, landlock, fds and limits stay as they are; what\n"
    "the filters keep away from the host's kernel is not kept away. Do not learn from\n"
    "a guest you distrust.\n"
    "\n"
    "example:\n"
    "    troupe policy learn --out mine -- troupe run --kernel vmlinuz\n"
    "\n"
    "exit codes: 2 wrong words or files, else that of the command.\n"
    "docs/errors.md explains the TRP-... codes.\n";

// The profiles of DIR, over those built in.
class LearnedFiles final: public ProfileFiles {
 public:
  LearnedFiles(const std::string& folder, const ProfileFiles& builtIn)
      : folder(folder), builtIn(builtIn) {}
  std::optional<std::string> read(const std::string& path) const override {
    auto changed = texts.find(path);
    if (changed != texts.end()) return changed->second;
    if (auto text = folder.read(path)) return text;
    return builtIn.read(path);
  }
  bool has(const std::string& path) const { return folder.read(path).has_value(); }
  void put(const std::string& path, const std::string& text) { texts[path] = text; }

 private:
  sandbox::FolderFiles folder;
  const ProfileFiles& builtIn;
  std::map<std::string, std::string> texts;
};

[[noreturn]] void cannotWrite(const std::string& path) {
  throw ToolError("TRP-cfg-122", quoted(path) + " cannot be written: " + strerror(errno));
}

void makeFolders(const std::string& path) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    std::string folder = path.substr(0, at);
    if (mkdir(folder.c_str(), 0777) < 0 && errno != EEXIST) cannotWrite(folder);
    if (at == std::string::npos) return;
  }
}

// Whole or not at all.
void writeFile(const std::string& path, const std::string& text) {
  makeFolders(path.substr(0, path.rfind('/')));
  std::string temporary = path + ".new";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file || rename(temporary.c_str(), path.c_str()) < 0) cannotWrite(path);
}

bool isSameFile(const std::string& a, const std::string& b) {
  struct stat one, other;
  return stat(a.c_str(), &one) == 0 && stat(b.c_str(), &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

// Names functions, of which program whatever.
class Sites {
 public:
  std::string operator()(const CallRecord& record) {
    auto [entry, isNew] = programs.try_emplace(record.program);
    if (isNew) entry->second = sandbox::ProgramSymbols::read(record.program);
    return entry->second == nullptr ? "" : sandbox::callSite(entry->second->callers(record.stack));
  }

 private:
  std::map<std::string, std::unique_ptr<sandbox::ProgramSymbols>> programs;
};

class LearnCommand {
 public:
  LearnCommand(const sandbox::PolicyCatalogue& catalogue, const std::string& troupe,
               const CommandWords& words)
      : catalogue(catalogue), troupe(troupe), words(words) {
    auto given = words.values.find("--out");
    folder = given == words.values.end() ? "learned" : given->second;
    while (folder.size() > 1 && folder.back() == '/')
      folder.pop_back();
    if (folder.empty()) throw ToolError("TRP-cfg-006", "--out is \"\"; it is the path of a folder");
    fromScratch = words.flags.count("--from-scratch") != 0;
    json = words.flags.count("--json") != 0;
  }

  sandbox::ToolResult run() {
    auto records = record();
    std::map<std::string, std::vector<CallRecord>> byActor;
    for (CallRecord& one : records)
      byActor[one.actor].push_back(std::move(one));
    if (fromScratch && byActor.empty()) {
      throw ToolError("TRP-cfg-123",
                      "there is nothing to learn: no actor made a system call; "
                      "the command ended with status " +
                          std::to_string(result.exit));
    }
    LearnedFiles files(folder, catalogue.files);
    sandbox::TextTable table({"ACTOR", "KINDS OF CALLS", "NEW RULES", "PROFILE"}, {0, 0, 0, 0});
    for (const CataloguedActor& actor : catalogue.actors) {
      auto seen = byActor.find(actor.name);
      if (seen == byActor.end()) continue;
      joinStages(actor, seen->second);
      learnActor(files, actor, seen->second, table);
    }
    if (json) {
      result.out = sandbox::jsonArray(rows) + "\n";
      return std::move(result);
    }
    result.err += byActor.empty() ? "troupe: no filter refused a call: the profiles built "
                                    "in lack nothing for this run\n"
                                  : table.render();
    return std::move(result);
  }

 private:
  std::vector<CallRecord> record() {
    std::string program = findProgram(words.command[0]);
    bool ours =
        isSameFile(program, troupe) && words.command.size() > 1 && words.command[1] == "run";
    if (!ours) {
      throw ToolError("TRP-cfg-121",
                      "only `troupe run` can be learned from, and of " + quoted(troupe) +
                          ", which has the same profiles; the "
                          "command is " +
                          quoted(program) +
                          (words.command.size() > 1 ? " " + quoted(words.command[1]) : ""));
    }
    makeFolders(folder);
    RecordFolder calls(folder, false);
    auto command = words.command;
    command.insert(command.begin() + 2, std::string("--watch-calls=") +
                                            (fromScratch ? "all:" : "refused:") + calls.path());
    result.exit = runProgram(troupe, command, "", json);
    return calls.read();
  }

  // An actor with one filter for both stages cannot tell them apart; rules for them are its
  // `run`'s.
  void joinStages(const CataloguedActor& actor, std::vector<CallRecord>& records) const {
    auto policy = sandbox::readPolicy(catalogue.files, actor.path);
    if (filterOf(policy, "run") != filterOf(policy, "ready")) return;
    for (CallRecord& one : records) {
      if (one.stage == "ready") one.stage = "run";
    }
  }

  void learnActor(LearnedFiles& files, const CataloguedActor& actor,
                  const std::vector<CallRecord>& records, sandbox::TextTable& table) {
    std::string path = folder + "/" + actor.path;
    try {
      if (fromScratch && !files.has(actor.path)) {
        files.put(actor.path,
                  "# Learned from what the actor did: all else kills it. Review each "
                  "rule before you trust it.\n" +
                      sandbox::withoutRules(catalogue.files, actor.path));
      }
      Learned learned = sandbox::learn(files, actor.path, records,
                                       [this](const CallRecord& one) { return sites(one); });
      if (learned.rules > 0) writeFile(path, learned.text);
      table.add({actor.name, std::to_string(records.size()), std::to_string(learned.rules),
                 learned.rules > 0 ? path : "as it is"});
      sandbox::JsonObject row;
      row.add("actor", actor.name).addNumber("calls", records.size());
      row.addNumber("newRules", learned.rules).add("profile", learned.rules > 0 ? path : "");
      rows.push_back(row.text());
      for (const std::string& what : learned.refused)
        result.err += "troupe: " + actor.name + ": " + what + "\n";
    } catch (const sandbox::ProfileError& error) {
      throw ToolError("TRP-cfg-110", std::string("no profile can be learned for ") + actor.name +
                                         ": " + error.what());
    }
  }

  const sandbox::PolicyCatalogue& catalogue;
  const std::string& troupe;
  const CommandWords& words;
  std::string folder;
  bool fromScratch;
  bool json;
  std::vector<std::string> rows;  // with --json
  Sites sites;
  sandbox::ToolResult result{0, "", ""};
};

}  // namespace

sandbox::ToolResult learnCommand(const sandbox::PolicyCatalogue& catalogue,
                                 const std::string& troupe, std::vector<std::string> given) {
  auto words = parseCommandWords(given, {"--out"}, {"--from-scratch", "--json", "--help"});
  if (words.flags.count("--help") != 0) return {0, HELP, ""};
  if (words.command.empty()) {
    throw ToolError("TRP-cfg-004",
                    "no command is given: troupe policy learn [--out DIR] -- troupe run ...");
  }
  return LearnCommand(catalogue, troupe, words).run();
}

}  // namespace troupe
