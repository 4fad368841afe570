#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <map>
#include <string>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/control_client.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/run_folder.h"
#include "vmm/serve/daemon.h"
#include "vmm/table.h"
#include "vmm/user_error.h"
#include "vmm/vm_plan.h"
#include "vmm/vm_words.h"

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
  return kj::str(actor.getRestarts(), actor.getIsDown() ? ", down" : "");
}

void askStatus(kj::AsyncIoContext& io, kj::StringPtr name, VmStatus::Builder status) {
  ControlClient client(io, name);
  client.await(client.vm().statusRequest().send().then(
      [status](auto&& response) mutable { copyStatus(response.getStatus(), status); }));
}

kj::String toJson(VmStatus::Reader status) {
  capnp::JsonCodec codec;
  codec.setPrettyPrint(true);
  return codec.encode(status);
}

// Of all its devices.
uint64_t restartsOf(VmStatus::Reader status) {
  uint64_t restarts = 0;
  for (auto actor : status.getActors()) {
    if (!actor.getIsSpare()) restarts += actor.getRestarts();
  }
  return restarts;
}

// What the daemon of realms says of its guests, by their names.
struct ListedGuest {
  kj::Own<capnp::MallocMessageBuilder> status;  // holds a VmStatus
  uint64_t restarts;
};
using Guests = std::map<std::string, ListedGuest>;
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
        guests.emplace(status.getName().cStr(), ListedGuest{kj::mv(message), guest.getRestarts()});
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

}  // namespace

ExitCode listCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  bool json = false;
  bool onlyNames = false;
  kj::StringPtr socket;
  CommandLine line("list", "Lists your running VMs, and those of realms.", "");
  line.add({"json", "", "print JSON", false, [&](kj::StringPtr) { json = true; }});
  line.add({"names", "", "print names alone, and ask nobody", false,
            [&](kj::StringPtr) { onlyNames = true; }});
  line.add({"socket", "PATH", "where `troupe serve` listens; only its guests are listed", false,
            [&](kj::StringPtr path) { socket = path; }});
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  if (onlyNames) {
    for (auto& name : livingVms())
      printOut(kj::str(escape(name), "\n"));
    return ExitCode::POWERED_OFF;
  }
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
    if (guests.count(name.cStr()) > 0) continue;
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
  for (auto& guest : guests)
    add(guest.second.status->getRoot<VmStatus>(), guest.second.restarts);
  if (json) {
    printOut(kj::str("[", kj::strArray(objects, ",\n"), "]\n"));
  } else if (objects.size() == 0) {
    printOut("no VM is running\n");
  } else {
    printOut(table.render());
  }
  return ExitCode::POWERED_OFF;
}

ExitCode statusCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("status", "Shows one running VM and its actors.", "VM");
  KJ_IF_MAYBE (asked, parseVmWords(line, words, true)) {
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
