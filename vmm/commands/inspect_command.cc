#include <capnp/message.h>
#include <kj/async-io.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/commands/inspect_tree.h"
#include "vmm/config/vm_plan.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_report.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

// `troupe inspect VM jail`: how the actors of a running VM are jailed at this moment. It is the
// VM's `troupe` that looks; its front end only carries what it found. `troupe inspect VM [PATH]`:
// all there is to be known of a VM, as one tree (inspect_tree.h), or a part of it.
namespace troupe {

namespace {

constexpr kj::uint MOST_ACTORS = 64;
constexpr kj::uint MOST_ROWS = 1024;
constexpr kj::uint MOST_DIFFERENCES = 256;

// A copy in which every text is safe to show and no list is longer than can be.
void copyActor(ActorJail::Reader from, ActorJail::Builder to) {
  to.setName(escape(from.getName(), 40));
  to.setPid(from.getPid());
  to.setProfile(escape(from.getProfile(), 200));
  auto rows = to.initRows(kj::min(from.getRows().size(), MOST_ROWS));
  for (kj::uint i = 0; i < rows.size(); i++) {
    rows[i].setLayer(escape(from.getRows()[i].getLayer(), 60));
    rows[i].setFound(escape(from.getRows()[i].getFound(), 200));
    rows[i].setAgrees(from.getRows()[i].getAgrees());
  }
  auto differences = to.initDifferences(kj::min(from.getDifferences().size(), MOST_DIFFERENCES));
  for (kj::uint i = 0; i < differences.size(); i++)
    differences.set(i, escape(from.getDifferences()[i], 400));
}

void copyJails(VmJails::Reader from, VmJails::Builder to) {
  to.setName(escape(from.getName(), LONGEST_NAME));
  to.setState(escape(from.getState(), 20));
  to.setJail(escape(from.getJail(), 20));
  to.setFilters(escape(from.getFilters(), 200));
  auto actors = to.initActors(kj::min(from.getActors().size(), MOST_ACTORS));
  for (kj::uint i = 0; i < actors.size(); i++)
    copyActor(from.getActors()[i], actors[i]);
}

kj::String actorText(ActorJail::Reader actor) {
  if (actor.getPid() == 0) {
    auto why = actor.getRows().size() == 0 ? "?"_kj : actor.getRows()[0].getFound();
    return kj::str(actor.getName(), ", ", actor.getProfile(), ", not looked at: ", why, "\n");
  }
  constexpr kj::StringPtr HEADINGS[] = {"  LAYER"_kj, "FOUND"_kj, "PROFILE"_kj};
  Table table(HEADINGS);
  for (auto row : actor.getRows()) {
    table.add(kj::arr(kj::str("  ", row.getLayer()), kj::str(row.getFound()),
                      kj::str(row.getAgrees() ? "agrees" : "DIFFERS")));
  }
  return kj::str(actor.getName(), ", pid ", actor.getPid(), ", ", actor.getProfile(), "\n",
                 table.render());
}

size_t countDifferences(VmJails::Reader jails) {
  size_t count = 0;
  for (auto actor : jails.getActors())
    count += actor.getDifferences().size();
  return count;
}

// "1. broker: it has …", through all actors.
kj::String differencesText(VmJails::Reader jails) {
  kj::Vector<kj::String> lines;
  for (auto actor : jails.getActors()) {
    for (auto difference : actor.getDifferences())
      lines.add(kj::str("  ", lines.size() + 1, ". ", actor.getName(), ": ", difference, "\n"));
  }
  return kj::strArray(lines, "");
}

kj::String jailsText(VmJails::Reader jails) {
  kj::Vector<kj::String> parts;
  for (auto actor : jails.getActors())
    parts.add(actorText(actor));
  size_t differences = countDifferences(jails);
  bool onlyReports = jails.getJail() == "only reports";
  auto verdict =
      differences == 0 && onlyReports ? kj::str("All but the filters is as the profiles say.\n")
      : differences == 0              ? kj::str("All of it is as the profiles say.\n")
                         : kj::str(differences, " difference(s):\n", differencesText(jails));
  if (onlyReports) {
    auto warning = kj::str("FILTERS ONLY REPORT (troupe policy learn): they refuse nothing.\n");
    return kj::str(kj::strArray(parts, "\n"), "\n", warning, verdict);
  }
  auto filters = jails.getJail() == "on" ? kj::str("Before the guest ran, filters were attested ",
                                                   jails.getFilters(), "; now by mode and count.\n")
                                         : kj::str("No actor is jailed (--jail off).\n");
  return kj::str(kj::strArray(parts, "\n"), "\n", filters, verdict);
}

struct Words {
  kj::StringPtr vm;
  kj::StringPtr path;
  bool json;
};

kj::Maybe<Words> parseWords(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("inspect",
                   "Shows what a running VM says of itself, as of now: all of it, or what PATH "
                   "leads to: jail, status/actors/blk0, load/processes/net0/queues.",
                   "VM [PATH]", "troupe inspect web status/actors/blk0");
  line.exits(
      "0 done, 1 internal error, 2 wrong words, 4 with the path `jail`: a jail is not as its "
      "profile "
      "says");
  KJ_IF_MAYBE (found, line.parse(words, 2)) {
    if (found->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which VM? give its name"))
          .advice("see", "troupe list")
          .raise();
    }
    return Words{(*found)[0], found->size() == 2 ? (*found)[1] : kj::StringPtr(), line.json()};
  }
  printOut(line.help());
  return nullptr;
}

ExitCode inspectJails(const Words& asked) {
  auto io = kj::setupAsyncIo();
  capnp::MallocMessageBuilder message;
  auto jails = message.initRoot<VmJails>();
  ControlClient client(io, asked.vm);
  client.await(client.vm().inspectJailsRequest().send().then(
      [jails](auto&& response) mutable { copyJails(response.getJails(), jails); }));
  if (asked.json) {
    printOut(kj::str(reportJson(jails.asReader()), "\n"));
  } else {
    printOut(jailsText(jails));
  }
  size_t differences = countDifferences(jails);
  if (differences > 0) {
    UserError(codes::JAIL_DIFFERS,
              kj::str("the jails of VM ", quote(asked.vm), " differ from their profiles in ",
                      differences, " point(s)"))
        .advice("see", kj::str("troupe inspect ", shellWord(asked.vm), " jail"))
        .raise();
  }
  return ExitCode::POWERED_OFF;
}

ExitCode inspectPath(const Words& asked) {
  auto io = kj::setupAsyncIo();
  ControlClient client(io, asked.vm);
  InspectTree tree(client, asked.path);
  if (asked.json) {
    printOut(kj::str(tree.json(), "\n"));
    return ExitCode::POWERED_OFF;
  }
  KJ_IF_MAYBE (value, tree.single()) {
    printOut(kj::str(*value, "\n"));
    return ExitCode::POWERED_OFF;
  }
  constexpr kj::StringPtr HEADINGS[] = {"PATH"_kj, "VALUE"_kj};
  Table table(HEADINGS);
  tree.each([&](kj::StringPtr path, kj::StringPtr value) {
    table.add(kj::arr(kj::str(path), kj::str(value)));
  });
  printOut(table.render());
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode inspectCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  KJ_IF_MAYBE (asked, parseWords(words)) {
    return asked->path == "jail" ? inspectJails(*asked) : inspectPath(*asked);
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
