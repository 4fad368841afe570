#include <errno.h>
#include <string.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sandbox/policy.h"
#include "sandbox/tool/rule_hits.h"
#include "sandbox/tool/tool_error.h"
#include "sandbox/watch/coverage_variable.h"
#include "vmm/policy/command_words.h"
#include "vmm/policy/watch_commands.h"
#include "vmm/policy/watched_run.h"

namespace troupe {
namespace {

using sandbox::quoted;
using sandbox::ToolError;

constexpr char HELP[] =
    "usage: troupe policy coverage [OPTIONS] [-- COMMAND...]\n"
    "Runs a command, counts for each rule of each profile the calls it allowed to\n"
    "the actors of all VMs started below the command, and lists the rules that were\n"
    "never used.\n"
    "\n"
    "options:\n"
    "  --out FILE              add the counts to those in FILE; without a command,\n"
    "                          show FILE\n"
    "  --json                  print JSON; what the command prints goes to standard\n"
    "                          error then\n"
    "  --help                  print this\n"
    "\n"
    "The jails are as closed as ever, and every system call is slow. START, READY\n"
    "and RUN are the stages in which the calls were made.\n"
    "\n"
    "example:\n"
    "    troupe policy coverage --out counts -- troupe run --kernel vmlinuz\n"
    "\n"
    "exit codes: 2 wrong words or files, else that of the command.\n"
    "docs/errors.md explains the TRP-... codes.\n";

void addFile(const std::string& path, bool must, sandbox::RuleHits& hits) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (!must && errno == ENOENT) return;
    throw ToolError("TRP-cfg-124", quoted(path) + " cannot be read: " + strerror(errno));
  }
  std::stringstream text;
  text << file.rdbuf();
  if (text.str().empty() && !must) return;
  if (!hits.addText(text.str())) {
    throw ToolError("TRP-cfg-124", quoted(path) +
                                       " was not written by troupe policy coverage; "
                                       "name another file, or remove it");
  }
}

void writeFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file)
    throw ToolError("TRP-cfg-122", quoted(path) + " cannot be written: " + strerror(errno));
}

// Before the command has run for an hour.
void requireWritable(const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::app);
  if (!file)
    throw ToolError("TRP-cfg-122", quoted(path) + " cannot be written: " + strerror(errno));
}

std::string report(const sandbox::RuleHits& hits, const std::vector<sandbox::Policy>& policies) {
  if (hits.empty()) return "no actor ran\n";
  std::string unused = hits.unused(policies);
  return hits.table(policies) +
         (unused.empty() ? "\nevery rule was used\n" : "\nnever used\n" + unused);
}

}  // namespace

sandbox::ToolResult coverageCommand(const sandbox::PolicyCatalogue& catalogue,
                                    std::vector<std::string> given) {
  auto words = parseCommandWords(given, {"--out"}, {"--json", "--help"});
  if (words.flags.count("--help") != 0) return {0, HELP, ""};
  bool json = words.flags.count("--json") != 0;
  auto out = words.values.find("--out");
  bool hasFile = out != words.values.end();
  if (words.command.empty() && !hasFile) {
    throw ToolError("TRP-cfg-004",
                    "no command is given: troupe policy coverage [--out FILE] -- COMMAND...");
  }
  std::vector<sandbox::Policy> policies;
  for (const sandbox::CataloguedActor& actor : catalogue.actors)
    policies.push_back(sandbox::readPolicy(catalogue.files, actor.path));

  sandbox::ToolResult result{0, "", ""};
  sandbox::RuleHits hits;
  if (hasFile) addFile(out->second, words.command.empty(), hits);
  if (!words.command.empty()) {
    std::string program = findProgram(words.command[0]);
    if (hasFile) requireWritable(out->second);
    const char* temporary = getenv("TMPDIR");
    RecordFolder calls(temporary == nullptr || *temporary != '/' ? "/tmp" : temporary, true);
    result.exit =
        runProgram(program, words.command, sandbox::COVERAGE_VARIABLE + ("=" + calls.path()), json);
    auto records = calls.read();
    for (const sandbox::Policy& policy : policies)
      hits.add(policy, records);
    if (hasFile) writeFile(out->second, hits.text());
  }
  result.out = json ? hits.json(policies) : report(hits, policies);
  return result;
}

}  // namespace troupe
