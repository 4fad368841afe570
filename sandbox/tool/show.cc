#include "sandbox/tool/show.h"

#include <algorithm>
#include <set>

#include "sandbox/tool/call_text.h"
#include "sandbox/tool/json_text.h"
#include "sandbox/tool/layer_rows.h"
#include "sandbox/tool/text_table.h"

namespace troupe::sandbox {
namespace {

std::string numbers(const PolicyFd& fd) {
  std::string first = std::to_string(fd.number);
  return fd.count == 1 ? first : first + "-" + std::to_string(fd.number + fd.count - 1);
}

const char* origin(const PolicyFd& fd) {
  return fd.handed ? "handed" : fd.made ? "made" : "placed";
}

std::string fdTable(const Policy& policy) {
  std::vector<const PolicyFd*> sorted;
  for (const PolicyFd& fd : policy.fds)
    sorted.push_back(&fd);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const PolicyFd* a, const PolicyFd* b) { return a->number < b->number; });
  TextTable table({"NUMBER", "NAME", "KIND", "FROM", "NOTE", "SOURCE"}, {0, 0, 0, 0, 0, 0});
  for (const PolicyFd* fd : sorted) {
    std::string note = fd->closed ? "closed once ready" : "";
    if (fd->optional) note += (note.empty() ? "" : ", ") + std::string("optional");
    table.add({numbers(*fd), fd->name, fd->kind, origin(*fd), note.empty() ? "-" : note,
               placeText(fd->where)});
  }
  return table.render();
}

std::string layerTable(const Policy& policy) {
  TextTable table({"LAYER", "VALUE", "NEEDED", "SOURCE"}, {0, 52, 0, 0});
  for (const LayerRow& row : joinedRows(layerRows(policy.layers)))
    table.add({row.layer, row.value, row.need, placeText(row.where)});
  return table.render();
}

std::vector<std::string> layersJson(const Policy& policy) {
  std::vector<std::string> layers;
  for (const LayerRow& row : layerRows(policy.layers)) {
    layers.push_back(JsonObject()
                         .add("layer", row.layer)
                         .add("value", row.value)
                         .add("needed", row.need)
                         .add("source", describe(row.where))
                         .text());
  }
  return layers;
}

std::vector<const PolicyRule*> sorted(const PolicyFilter& filter) {
  std::vector<const PolicyRule*> rules;
  for (const PolicyRule& rule : filter.rules)
    rules.push_back(&rule);
  std::stable_sort(rules.begin(), rules.end(), [](const PolicyRule* a, const PolicyRule* b) {
    return a->syscallName < b->syscallName;
  });
  return rules;
}

std::string identity(const PolicyRule& rule) {
  return callText(rule) + " " + conditionsText(rule) + " " + describe(rule.where);
}

// The rules of `filter` that are not in `known`; to which they are added.
std::string ruleTable(const PolicyFilter& filter, std::set<std::string>& known) {
  TextTable table({"CALL", "CONDITIONS", "REASON", "SOURCE"}, {0, 52, 40, 0});
  for (const PolicyRule* rule : sorted(filter)) {
    if (!known.insert(identity(*rule)).second) continue;
    table.add({callText(*rule), conditionsText(*rule), reasonText(*rule), placeText(rule->where)});
  }
  return table.render();
}

std::string heading(const Policy& policy, const std::string& stage, const PolicyFilter& filter) {
  Reach reach = reachOf(filter);
  std::string text = stage + ": " + std::to_string(reach.total()) + " system calls, " +
                     std::to_string(reach.conditional.size()) + " with conditions";
  for (const PolicyBudget& budget : policy.budgets) {
    if (budget.filter != stage) continue;
    text += "; budget " + std::to_string(budget.syscalls) + ", at most " +
            std::to_string(budget.unconditional) + " without";
  }
  return text;
}

std::string stageText(const Policy& policy, const std::string& stage, const std::string& also,
                      std::set<std::string>& known) {
  const PolicyFilter* filter = filterOf(policy, stage);
  if (filter == nullptr) return "";
  std::string table = ruleTable(*filter, known);
  std::string text = "\n" + heading(policy, stage, *filter) + "\n";
  if (!also.empty()) text += "  All of " + also + (table.empty() ? ".\n" : ", and:\n");
  return text + table;
}

std::string ruleJson(const PolicyRule& rule) {
  std::vector<std::string> arguments;
  for (const PolicyArgument& argument : rule.arguments) {
    std::vector<std::string> fds;
    for (const std::string& fd : argument.fds)
      fds.push_back(jsonString(fd));
    arguments.push_back(JsonObject()
                            .addNumber("index", argument.index)
                            .add("name", argumentName(rule.syscallName, argument.index))
                            .add("condition", argument.text)
                            .addRaw("fds", jsonArray(fds))
                            .text());
  }
  std::vector<std::string> narrowedBy;
  for (const SourceLocation& where : rule.narrowedBy)
    narrowedBy.push_back(jsonString(describe(where)));
  JsonObject object;
  object.add("syscall", rule.syscallName).addRaw("arguments", jsonArray(arguments));
  if (rule.error != 0) object.add("fails", rule.fail);
  object.add("reason", rule.reason)
      .add("stage", rule.stage)
      .add("source", describe(rule.where))
      .addRaw("narrowedBy", jsonArray(narrowedBy));
  return object.text();
}

std::string stageJson(const Policy& policy, const std::string& stage) {
  const PolicyFilter& filter = *filterOf(policy, stage);
  std::vector<std::string> rules;
  for (const PolicyRule* rule : sorted(filter))
    rules.push_back(ruleJson(*rule));
  Reach reach = reachOf(filter);
  JsonObject object;
  object.add("stage", stage)
      .addNumber("syscalls", reach.total())
      .addNumber("unconditional", reach.unconditional.size());
  for (const PolicyBudget& budget : policy.budgets) {
    if (budget.filter != stage) continue;
    object.addRaw("budget", JsonObject()
                                .addNumber("syscalls", budget.syscalls)
                                .addNumber("unconditional", budget.unconditional)
                                .text());
  }
  return object.addRaw("rules", jsonArray(rules)).text();
}

std::string fdJson(const PolicyFd& fd) {
  return JsonObject()
      .add("name", fd.name)
      .addNumber("number", fd.number)
      .addNumber("count", fd.count)
      .add("kind", fd.kind)
      .add("from", origin(fd))
      .addFlag("optional", fd.optional)
      .addFlag("closed", fd.closed)
      .add("source", describe(fd.where))
      .text();
}

}  // namespace

std::string showPolicy(const Policy& policy) {
  std::string text = "actor " + policy.actor + ", " + policy.path + "\n";
  text += "\nlayers\n" + layerTable(policy);
  text += "\nfds\n" + fdTable(policy);
  if (!policy.limits.empty()) {
    TextTable limits({"LIMIT", "VALUE"}, {0, 0});
    for (const PolicyLimit& limit : policy.limits)
      limits.add({limit.name, std::to_string(limit.value)});
    text += "\nlimits\n" + limits.render();
  }
  std::set<std::string> known;
  text += stageText(policy, "run", "", known);
  text += stageText(policy, "ready", "run", known);
  std::set<std::string> threadRules;
  std::string threads, threadNames;
  for (const PolicyFilter& filter : policy.filters) {
    if (filter.stage.compare(0, 7, "thread:") != 0) continue;
    std::set<std::string> own;
    threads += stageText(policy, filter.stage, "", own);
    threadRules.merge(own);
    threadNames += " and " + filter.stage;
  }
  text += threads;
  known.merge(threadRules);
  bool hasReady = filterOf(policy, "ready") != nullptr;
  text += stageText(policy, "start", (hasReady ? "ready" : "") + threadNames, known);
  return text;
}

std::string showPolicyJson(const Policy& policy) {
  std::vector<std::string> fds, limits, stages;
  for (const PolicyFd& fd : policy.fds)
    fds.push_back(fdJson(fd));
  for (const PolicyLimit& limit : policy.limits) {
    limits.push_back(
        JsonObject().add("resource", limit.name).addNumber("value", limit.value).text());
  }
  for (const std::string& stage : stagesOf(policy))
    stages.push_back(stageJson(policy, stage));
  return JsonObject()
             .add("actor", policy.actor)
             .add("profile", policy.path)
             .addRaw("layers", jsonArray(layersJson(policy)))
             .addRaw("fds", jsonArray(fds))
             .addRaw("limits", jsonArray(limits))
             .addRaw("stages", jsonArray(stages))
             .text() +
         "\n";
}

}  // namespace troupe::sandbox
