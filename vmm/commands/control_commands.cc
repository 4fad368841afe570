#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <set>
#include <string>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/config/vm_plan.h"
#include "vmm/control/control_client.h"
#include "vmm/files/run_folder.h"
#include "vmm/serve/daemon.h"
#include "vmm/words/json_line.h"
#include "vmm/words/json_report.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::String durationText(uint64_t milliseconds) {
  uint64_t seconds = milliseconds / 1000;
  if (seconds < 60) return kj::str(seconds, " s");
  if (seconds < 3600) return kj::str(seconds / 60, " min");
  return kj::str(seconds / 3600, " h ", seconds / 60 % 60, " min");
}

// A copy of what a VM says of itself with every text made safe to show.
void copyStatus(VmStatus::Reader from, VmStatus::Builder to) {
  to.setName(escape(from.getName(), LONGEST_NAME));
  to.setPid(from.getPid());
  to.setState(escape(from.getState(), 20));
  to.setUptimeMs(from.getUptimeMs());
  to.setCpus(from.getCpus());
  to.setMemoryBytes(from.getMemoryBytes());
  to.setFilters(escape(from.getFilters(), 200));
  to.setReboots(from.getReboots());
  constexpr kj::uint MOST_MISSING = 64;
  auto missing = to.initMissing(kj::min(from.getMissing().size(), MOST_MISSING));
  for (kj::uint i = 0; i < missing.size(); i++)
    missing.set(i, escape(from.getMissing()[i], 400));
  auto actors = from.getActors();
  constexpr kj::uint MOST_ACTORS = 64;
  auto copies = to.initActors(kj::min(actors.size(), MOST_ACTORS));
  for (kj::uint i = 0; i < copies.size(); i++) {
    copies[i].setName(escape(actors[i].getName(), 40));
    copies[i].setKind(escape(actors[i].getKind(), 20));
    copies[i].setPid(actors[i].getPid());
    copies[i].setJail(escape(actors[i].getJail(), 20));
    copies[i].setRestarts(actors[i].getRestarts());
    copies[i].setIsSpare(actors[i].getIsSpare());
    copies[i].setIsDown(actors[i].getIsDown());
    copies[i].setIsStarting(actors[i].getIsStarting());
  }
}

kj::String restartsText(ActorStatus::Reader actor) {
  if (actor.getIsSpare()) return kj::str("spare", actor.getIsStarting() ? ", starting" : "");
  kj::StringPtr how = actor.getIsDown() ? ", down" : actor.getIsStarting() ? ", replacing" : "";
  return kj::str(actor.getRestarts(), how);
}

void askStatus(kj::AsyncIoContext& io, kj::StringPtr name, VmStatus::Builder status) {
  ControlClient client(io, name);
  client.await(client.vm().statusRequest().send().then(
      [status](auto&& response) mutable { copyStatus(response.getStatus(), status); }));
}

kj::String toJson(VmStatus::Reader status) {
  return reportJson(status);
}

// Of all its devices.
uint64_t restartsOf(VmStatus::Reader status) {
  uint64_t restarts = 0;
  for (auto actor : status.getActors()) {
    if (!actor.getIsSpare()) restarts += actor.getRestarts();
  }
  return restarts;
}

// What the daemon of realms says of its guests.
struct ListedGuest {
  kj::Own<capnp::MallocMessageBuilder> status;  // holds a VmStatus
  uint64_t restarts;
};
struct Guests {
  kj::Vector<ListedGuest> all;  // by realm and number
  std::set<std::string> names;
};
Guests askRealms(kj::AsyncIoContext& io, kj::StringPtr socket) {
  Guests guests;
  auto ask = [&](realm::Daemon& daemon) {
    daemon.await(daemon.manager().listGuestsRequest().send().then([&](auto&& answer) {
      for (auto guest : answer.getGuests()) {
        auto message = kj::heap<capnp::MallocMessageBuilder>();
        auto status = message->template initRoot<VmStatus>();
        bool hasLabel = guest.getRealmLabel().size() > 0;
        status.setName(escape(guest.getName(), LONGEST_NAME));
        status.setState(escape(guest.getState(), 20));
        status.setUptimeMs(guest.getUptimeMs());
        status.setCpus(guest.getCpus());
        status.setMemoryBytes(guest.getMemoryBytes());
        status.setRealm(hasLabel ? escape(guest.getRealmLabel(), 400) : kj::str(guest.getRealm()));
        status.setCid(guest.getCid());
        status.setLabel(escape(guest.getLabel(), 400));
        status.setPid(guest.getPid());
        guests.names.insert(status.getName().cStr());
        guests.all.add(ListedGuest{kj::mv(message), guest.getRestarts()});
      }
    }));
  };
  if (socket.size() > 0) {
    realm::Daemon daemon(io, socket);
    ask(daemon);
  } else {
    KJ_IF_MAYBE (daemon, realm::Daemon::ifThere(io)) {
      ask(**daemon);
    }
  }
  return guests;
}

// The realms that the daemon holds. Where none runs there are none.
ExitCode listRealms(kj::StringPtr socket, bool onlyNames, bool json) {
  auto io = kj::setupAsyncIo();
  kj::Maybe<kj::Own<realm::Daemon>> daemon;
  if (socket.size() > 0) {
    daemon = kj::heap<realm::Daemon>(io, socket);
  } else {
    daemon = realm::Daemon::ifThere(io);
  }
  constexpr kj::StringPtr HEADINGS[] = {"REALM"_kj, "LABEL"_kj, "GUESTS"_kj};
  Table table(HEADINGS);
  JsonLine list(JsonLine::Kind::LIST);
  kj::Vector<kj::String> names;
  KJ_IF_MAYBE (there, daemon) {
    auto& one = **there;
    one.await(one.manager().listRequest().send().then([&](auto&& answer) {
      for (auto realm : answer.getEnvironments()) {
        auto label = escape(realm.getLabel(), 400);
        uint64_t guests = realm.getInstances().size();
        names.add(label.size() > 0 ? kj::str(label) : kj::str(realm.getId()));
        table.add(kj::arr(kj::str(realm.getId()), kj::str(label), kj::str(guests)));
        list.add(JsonLine()
                     .number("id", uint64_t(realm.getId()))
                     .text("label", label)
                     .number("guests", guests));
      }
    }));
  }
  if (json) {
    printOut(kj::str(list.render(), "\n"));
  } else if (onlyNames) {
    for (auto& name : names)
      printOut(kj::str(name, "\n"));
  } else {
    printOut(names.size() == 0 ? kj::str("there is no realm\n") : table.render());
  }
  return ExitCode::POWERED_OFF;
}

// Of all your VMs, whom nobody is asked for, or of the guests of one daemon.
ExitCode listNames(kj::StringPtr socket, bool json) {
  kj::Vector<kj::String> names;
  if (socket.size() > 0) {
    auto io = kj::setupAsyncIo();
    for (auto& name : askRealms(io, socket).names)
      names.add(kj::heapString(name.data(), name.size()));
  } else {
    for (auto& name : livingVms())
      names.add(escape(name));
  }
  kj::Vector<kj::String> lines;
  // A name is made of letters, digits and little more.
  for (auto& name : names)
    lines.add(json ? kj::str("\"", name, "\"") : kj::str(name, "\n"));
  printOut(json ? kj::str("[", kj::strArray(lines, ","), "]\n") : kj::strArray(lines, ""));
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode listCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  bool onlyNames = false;
  bool onlyRealms = false;
  kj::StringPtr socket;
  CommandLine line("list", "Lists your running VMs, and those of realms.", "",
                   "troupe list --json");
  line.add({"names", "", "print names alone; without --socket nobody is asked for them", false,
            [&](kj::StringPtr) { onlyNames = true; }});
  line.add({"realms", "", "list the realms of `troupe serve`", false,
            [&](kj::StringPtr) { onlyRealms = true; }});
  line.add(
      {"socket", "PATH",
       "where `troupe serve` listens, unless it is the usual place; only its guests are listed",
       false, [&](kj::StringPtr path) { socket = path; }});
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  if (onlyRealms) return listRealms(socket, onlyNames, line.json());
  if (onlyNames) return listNames(socket, line.json());
  auto io = kj::setupAsyncIo();
  constexpr kj::StringPtr HEADINGS[] = {"NAME"_kj, "STATE"_kj, "UP"_kj,  "CPUS"_kj,  "MEMORY"_kj,
                                        "PID"_kj,  "REALM"_kj, "CID"_kj, "LABEL"_kj, "RESTARTS"_kj};
  constexpr size_t LONGEST_SHOWN = 24;
  Table table(HEADINGS);
  kj::Vector<kj::String> objects;
  auto add = [&](VmStatus::Reader status, uint64_t restarts) {
    bool inRealm = status.getRealm().size() > 0;
    table.add(kj::arr(
        kj::str(status.getName()), kj::str(status.getState()), durationText(status.getUptimeMs()),
        kj::str(status.getCpus()), sizeText(status.getMemoryBytes()), kj::str(status.getPid()),
        inRealm ? escape(status.getRealm(), LONGEST_SHOWN) : kj::str("-"),
        inRealm ? kj::str(status.getCid()) : kj::str("-"),
        inRealm ? escape(status.getLabel(), LONGEST_SHOWN) : kj::str("-"), kj::str(restarts)));
    objects.add(toJson(status));
  };
  auto guests = askRealms(io, socket);
  auto names = socket.size() > 0 ? kj::Array<kj::String>() : livingVms();
  for (auto& name : names) {
    if (guests.names.count(name.cStr()) > 0) continue;
    capnp::MallocMessageBuilder message;
    auto status = message.initRoot<VmStatus>();
    auto failure = kj::runCatchingExceptions([&]() { askStatus(io, name, status); });
    if (failure != nullptr) {
      // It may have ended since, or it is stuck: either way the others are shown.
      status.setName(escape(name));
      status.setState("silent");
    }
    add(status, restartsOf(status));
  }
  for (auto& guest : guests.all)
    add(guest.status->getRoot<VmStatus>(), guest.restarts);
  if (line.json()) {
    printOut(kj::str("[", kj::strArray(objects, ",\n"), "]\n"));
  } else if (objects.size() == 0) {
    printOut("no VM is running\n");
  } else {
    printOut(table.render());
  }
  return ExitCode::POWERED_OFF;
}

ExitCode statusCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("status", "Shows one running VM and its actors.", "VM", "troupe status web");
  KJ_IF_MAYBE (asked, parseVmWords(line, words)) {
    auto io = kj::setupAsyncIo();
    capnp::MallocMessageBuilder message;
    auto status = message.initRoot<VmStatus>();
    askStatus(io, asked->name, status);
    if (asked->json) {
      printOut(kj::str(toJson(status), "\n"));
      return ExitCode::POWERED_OFF;
    }
    constexpr kj::StringPtr HEADINGS[] = {"ACTOR"_kj, "KIND"_kj, "PID"_kj, "JAIL"_kj,
                                          "RESTARTS"_kj};
    Table table(HEADINGS);
    for (auto actor : status.getActors()) {
      table.add(kj::arr(kj::str(actor.getName()), kj::str(actor.getKind()), kj::str(actor.getPid()),
                        kj::str(actor.getJail()), restartsText(actor)));
    }
    printOut(kj::str(
        status.getName(), ": ", status.getState(), " for ", durationText(status.getUptimeMs()),
        ", ", status.getCpus(), " CPU(s), ", sizeText(status.getMemoryBytes()),
        " of RAM, troupe has pid ", status.getPid(), "\n", table.render(),
        status.getReboots() == 0
            ? kj::str()
            : kj::str("its guest was started anew ", status.getReboots(), " time(s)\n"),
        status.getFilters().size() == 0
            ? kj::str()
            : kj::str("filters are attested ", status.getFilters(), "\n"),
        status.getMissing().size() == 0
            ? kj::str()
            : kj::str("missing on this host, as the profiles let it be: ",
                      kj::strArray(status.getMissing(), "; "), "\n")));
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
