// `troupe graph VM`: every process of a running VM, what each holds and whom that leads to.

#include <capnp/message.h>
#include <kj/async-io.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/config/vm_plan.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_report.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::uint MOST_PROCESSES = 64;
constexpr kj::uint MOST_FDS = 1024;
constexpr kj::uint MOST_EDGES = 4096;
constexpr kj::uint MOST_EXTRAS = 256;
constexpr size_t LONGEST = 200;

// A copy in which every text is safe to show and no list is longer than can be.
void copyProcess(GraphProcess::Reader from, GraphProcess::Builder to) {
  to.setName(escape(from.getName(), 40));
  to.setKind(escape(from.getKind(), 20));
  to.setPid(from.getPid());
  to.setProfile(escape(from.getProfile(), LONGEST));
  to.setStage(escape(from.getStage(), 20));
  to.setMemory(escape(from.getMemory(), LONGEST));
  to.setRestarts(from.getRestarts());
  auto fds = to.initFds(kj::min(from.getFds().size(), MOST_FDS));
  for (kj::uint i = 0; i < fds.size(); i++) {
    auto fd = from.getFds()[i];
    fds[i].setName(escape(fd.getName(), 40));
    fds[i].setNumbers(escape(fd.getNumbers(), 40));
    fds[i].setKind(escape(fd.getKind(), 40));
    fds[i].setFound(escape(fd.getFound(), LONGEST));
    fds[i].setLeadsTo(escape(fd.getLeadsTo(), LONGEST));
    fds[i].setAsked(fd.getAsked());
  }
}

void copyGraph(VmGraph::Reader from, VmGraph::Builder to) {
  to.setName(escape(from.getName(), LONGEST_NAME));
  to.setState(escape(from.getState(), 20));
  to.setJail(escape(from.getJail(), 20));
  to.setPid(from.getPid());
  auto processes = to.initProcesses(kj::min(from.getProcesses().size(), MOST_PROCESSES));
  for (kj::uint i = 0; i < processes.size(); i++)
    copyProcess(from.getProcesses()[i], processes[i]);
  auto edges = to.initEdges(kj::min(from.getEdges().size(), MOST_EDGES));
  for (kj::uint i = 0; i < edges.size(); i++) {
    edges[i].setFrom(escape(from.getEdges()[i].getFrom(), LONGEST));
    edges[i].setTo(escape(from.getEdges()[i].getTo(), LONGEST));
    edges[i].setWhat(escape(from.getEdges()[i].getWhat(), LONGEST));
    edges[i].setAsked(from.getEdges()[i].getAsked());
  }
  auto extras = to.initExtras(kj::min(from.getExtras().size(), MOST_EXTRAS));
  for (kj::uint i = 0; i < extras.size(); i++)
    extras.set(i, escape(from.getExtras()[i], 600));
}

kj::StringPtr mark(bool asked) {
  return asked ? ""_kj : "NOT ASKED FOR"_kj;
}

kj::String processText(GraphProcess::Reader process) {
  constexpr kj::StringPtr HEADINGS[] = {"  FD"_kj, "NAME"_kj, "FOUND"_kj, "LEADS TO"_kj, ""_kj};
  Table table(HEADINGS);
  for (auto fd : process.getFds()) {
    table.add(kj::arr(kj::str("  ", fd.getNumbers()), kj::str(fd.getName()), kj::str(fd.getFound()),
                      kj::str(fd.getLeadsTo()), kj::str(mark(fd.getAsked()))));
  }
  if (process.getPid() == 0) {
    return kj::str(process.getName(), ", ", process.getProfile(),
                   ", not looked at: ", process.getStage(), ", ", process.getRestarts(),
                   " restarts\n\n");
  }
  return kj::str(process.getName(), ", pid ", process.getPid(), ", ", process.getProfile(),
                 ", filter ", process.getStage(), ", maps ", process.getMemory(), ", ",
                 process.getRestarts(), " restarts\n", table.render(), "\n");
}

kj::String extrasText(VmGraph::Reader graph) {
  kj::Vector<kj::String> lines;
  for (auto text : graph.getExtras())
    lines.add(kj::str("  ", lines.size() + 1, ". ", text, "\n"));
  return kj::strArray(lines, "");
}

kj::String graphText(VmGraph::Reader graph) {
  kj::Vector<kj::String> parts;
  parts.add(kj::str(graph.getName(), ": ", graph.getState(), ", jail ", graph.getJail(),
                    ", troupe has pid ", graph.getPid(), "\n\n"));
  for (auto process : graph.getProcesses())
    parts.add(processText(process));
  constexpr kj::StringPtr HEADINGS[] = {"FROM"_kj, "TO"_kj, "WHAT"_kj, ""_kj};
  Table table(HEADINGS);
  for (auto edge : graph.getEdges()) {
    table.add(kj::arr(kj::str(edge.getFrom()), kj::str(edge.getTo()), kj::str(edge.getWhat()),
                      kj::str(mark(edge.getAsked()))));
  }
  parts.add(table.render());
  parts.add(graph.getExtras().size() == 0
                ? kj::str("\nAll of it is what the configuration asks for.\n")
                : kj::str("\nThe configuration did not ask for:\n", extrasText(graph)));
  return kj::strArray(parts, "");
}

// Text in double quotes as dot reads it. What escape() wrote as \xNN shall show so.
kj::String dotText(kj::StringPtr text) {
  kj::Vector<char> out;
  out.add('"');
  for (char c : text) {
    if (c == '"' || c == '\\') out.add('\\');
    out.add(c);
  }
  out.add('"');
  out.add('\0');
  return kj::String(out.releaseAsArray());
}

kj::String dotGraph(VmGraph::Reader graph) {
  kj::Vector<kj::String> lines;
  lines.add(kj::str("digraph ", dotText(graph.getName()), " {"));
  lines.add(kj::str("  node [shape=plaintext];"));
  lines.add(kj::str(
      "  \"troupe\" [shape=box, label=", dotText(kj::str("troupe, pid ", graph.getPid())), "];"));
  for (auto process : graph.getProcesses()) {
    lines.add(kj::str("  ", dotText(process.getName()), " [shape=box, style=rounded, label=",
                      dotText(kj::str(process.getName(), ", pid ", process.getPid())), "];"));
  }
  for (auto edge : graph.getEdges()) {
    lines.add(kj::str("  ", dotText(edge.getFrom()), " -> ", dotText(edge.getTo()),
                      " [label=", dotText(edge.getWhat()),
                      edge.getAsked() ? "" : ", color=red, fontcolor=red, penwidth=3", "];"));
  }
  lines.add(kj::str("}"));
  return kj::str(kj::strArray(lines, "\n"), "\n");
}

enum class Form { TEXT, JSON, DOT };

struct Words {
  kj::StringPtr vm;
  Form form;
};

kj::Maybe<Words> parseWords(kj::ArrayPtr<const kj::StringPtr> words) {
  bool dot = false;
  CommandLine line(
      "graph",
      "Shows every process of a running VM, what each holds and whom that leads to, as "
      "of now, and whether the configuration asks for it.",
      "VM", "troupe graph web --dot | dot -Tsvg > web.svg");
  line.add({"dot", "", "print a graph for `dot -Tsvg`", false, [&](kj::StringPtr) { dot = true; }});
  line.exits(
      "0 all of it is asked for, 1 internal error, 2 wrong words, 4 something is not asked for");
  KJ_IF_MAYBE (said, parseVmWords(line, words)) {
    if (dot && said->json) {
      UserError(codes::ARGUMENTS,
                kj::str("--dot and --json exclude each other; ask for one after the other"))
          .raise();
    }
    return Words{said->name, dot ? Form::DOT : said->json ? Form::JSON : Form::TEXT};
  }
  return nullptr;
}

kj::String render(VmGraph::Reader graph, Form form) {
  switch (form) {
    case Form::DOT:
      return dotGraph(graph);
    case Form::JSON:
      return kj::str(reportJson(graph), "\n");
    case Form::TEXT:
      break;
  }
  return graphText(graph);
}

}  // namespace

ExitCode graphCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  KJ_IF_MAYBE (asked, parseWords(words)) {
    auto io = kj::setupAsyncIo();
    capnp::MallocMessageBuilder message;
    auto graph = message.initRoot<VmGraph>();
    ControlClient client(io, asked->vm);
    client.await(client.vm().graphRequest().send().then(
        [graph](auto&& response) mutable { copyGraph(response.getGraph(), graph); }));
    printOut(render(graph, asked->form));
    if (graph.getExtras().size() > 0) {
      UserError(codes::GRAPH_DIFFERS, kj::str("processes of VM ", quote(asked->vm),
                                              " hold what its configuration does not "
                                              "ask for, in ",
                                              graph.getExtras().size(), " point(s)"))
          .advice("see", kj::str("troupe graph ", shellWord(asked->vm)))
          .raise();
    }
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
