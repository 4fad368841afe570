#include "sandbox/tool/budget_table.h"

#include "sandbox/tool/json_text.h"
#include "sandbox/tool/text_table.h"

namespace troupe::sandbox {
namespace {

const PolicyBudget* budgetOf(const Policy& policy, const std::string& stage) {
  for (const PolicyBudget& budget : policy.budgets) {
    if (budget.filter == stage) return &budget;
  }
  return nullptr;
}

}  // namespace

std::string budgetTable(const std::vector<Policy>& policies) {
  TextTable table({"ACTOR", "STAGE", "CALLS", "BUDGET", "WITH CONDITIONS", "WITHOUT", "BUDGET"},
                  {0, 0, 0, 0, 0, 0, 0});
  for (const Policy& policy : policies) {
    for (const std::string& stage : stagesOf(policy)) {
      Reach reach = reachOf(*filterOf(policy, stage));
      const PolicyBudget* budget = budgetOf(policy, stage);
      table.add({policy.actor, stage, std::to_string(reach.total()),
                 budget == nullptr ? "-" : std::to_string(budget->syscalls),
                 std::to_string(reach.conditional.size()),
                 std::to_string(reach.unconditional.size()),
                 budget == nullptr ? "-" : std::to_string(budget->unconditional)});
    }
  }
  return table.render();
}

std::string budgetJson(const std::vector<Policy>& policies) {
  std::vector<std::string> rows;
  for (const Policy& policy : policies) {
    for (const std::string& stage : stagesOf(policy)) {
      Reach reach = reachOf(*filterOf(policy, stage));
      JsonObject row;
      row.add("actor", policy.actor)
          .add("stage", stage)
          .addNumber("syscalls", reach.total())
          .addNumber("conditional", reach.conditional.size())
          .addNumber("unconditional", reach.unconditional.size());
      if (const PolicyBudget* budget = budgetOf(policy, stage)) {
        row.addRaw("budget", JsonObject()
                                 .addNumber("syscalls", budget->syscalls)
                                 .addNumber("unconditional", budget->unconditional)
                                 .text());
      }
      rows.push_back(row.text());
    }
  }
  return jsonArray(rows) + "\n";
}

}  // namespace troupe::sandbox
