// What a VM tells of itself: its table, its jails, and what is to be known as it begins.

#include <unistd.h>

#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr size_t LONGEST_FINDING = 120;  // in a table of them
constexpr size_t LONGEST_DIFFERENCE = 400;
constexpr size_t MOST_DIFFERENCES = 16;  // of one actor; they repeat themselves then

void describeJail(Actor& actor, const sandbox::Attestation& found, ActorJail::Builder to) {
  to.setName(actor.name());
  to.setPid(actor.child().pid());
  to.setProfile(actor.profile().source);
  auto rows = to.initRows(found.observations.size());
  for (kj::uint i = 0; i < rows.size(); i++) {
    auto& one = found.observations[i];
    rows[i].setLayer(one.layer);
    // A peer's words are in some: the names of files and of threads.
    rows[i].setFound(escape(one.found, LONGEST_FINDING));
    rows[i].setAgrees(one.agrees);
  }
  auto differences = to.initDifferences(kj::min(found.differences.size(), MOST_DIFFERENCES));
  for (kj::uint i = 0; i < differences.size(); i++)
    differences.set(i, escape(found.differences[i], LONGEST_DIFFERENCE));
}

void describeTransit(Actor& actor, kj::StringPtr transit, ActorJail::Builder to) {
  to.setName(actor.name());
  to.setProfile(actor.profile().source);
  auto row = to.initRows(1)[0];
  row.setLayer("process");
  row.setFound(transit);
  row.setAgrees(true);
}

}  // namespace

void LocalVm::describe(VmStatus::Builder status) {
  status.setName(place->name());
  status.setPid(getpid());
  status.setState(state());
  KJ_IF_MAYBE (course, guest) {
    status.setReboots((*course)->reboots());
  }
  status.setUptimeMs((io.provider->getTimer().now() - startedAt) / kj::MILLISECONDS);
  status.setCpus(plan.cpus);
  status.setMemoryBytes(plan.memoryBytes);

  if (stage.jail == sandbox::Jail::ON && !stage.onlyReports)
    status.setFilters(inspection.filterMethod());

  auto missing = missingLayers();
  auto texts = status.initMissing(missing.size());
  for (kj::uint i = 0; i < missing.size(); i++)
    texts.set(i, missing[i]);

  auto actors = everyActor();
  auto list = status.initActors(actors.size());
  for (kj::uint i = 0; i < actors.size(); i++) {
    list[i].setName(actors[i]->name());
    list[i].setKind(actors[i]->kind());
    list[i].setPid(actors[i]->child().pid());
    list[i].setJail(jailState());
    if (actors[i] == company.serial.get()) {
      list[i].setRestarts(company.serialRestarts);
      list[i].setIsStarting(transitOf(*actors[i]) != nullptr);
    }
    for (auto& device : company.devices) {
      if (device.actor.get() == actors[i]) {
        list[i].setRestarts(device.restarts);
        list[i].setIsDown(device.isDown);
        list[i].setIsStarting(!device.isDown && transitOf(*actors[i]) != nullptr);
      }
      KJ_IF_MAYBE (spare, device.spare) {
        if (spare->actor.get() != actors[i]) continue;
        list[i].setIsSpare(true);
        list[i].setIsStarting(!spare->isReady);
      }
    }
  }
}

kj::Vector<kj::String> LocalVm::missingLayers() {
  kj::Vector<kj::String> missing;
  for (auto& layer : stage.launcher.missingLayers())
    missing.add(kj::heapString(layer));
  auto limits = groups.missing();
  if (limits.size() > 0) missing.add(kj::mv(limits));
  return missing;
}

kj::StringPtr LocalVm::jailState() const {
  if (stage.jail == sandbox::Jail::OFF) return "off"_kj;
  if (stage.onlyReports) return "only reports"_kj;
  return attested ? "attested"_kj : "closing"_kj;
}

void LocalVm::inspectJails(VmJails::Builder jails) {
  jails.setName(place->name());
  jails.setState(state());
  jails.setJail(stage.onlyReports                 ? "only reports"
                : stage.jail == sandbox::Jail::ON ? "on"
                                                  : "off");
  jails.setFilters(inspection.filterMethod());
  auto actors = everyActor();
  auto list = jails.initActors(actors.size());
  auto when = running ? sandbox::Stage::RUN : sandbox::Stage::START;
  for (kj::uint i = 0; i < actors.size(); i++) {
    KJ_IF_MAYBE (transit, transitOf(*actors[i])) {
      describeTransit(*actors[i], *transit, list[i]);
    } else {
      describeJail(*actors[i], inspection.look(*actors[i], when), list[i]);
    }
  }
}

bool LocalVm::isStill() {
  for (auto actor : everyActor()) {
    if (isMoving(*actor)) return false;
  }
  return true;
}

bool LocalVm::isMoving(const Actor& actor) const {
  KJ_IF_MAYBE (keeper, serialKeeper) {
    if (&actor == company.serial.get()) return (*keeper)->isMoving();
  }
  KJ_IF_MAYBE (one, supervisor) {
    return (*one)->isMoving(actor);
  }
  return false;
}

// Of one that holds, just now, something else than it will: why it is not looked at.
kj::Maybe<kj::StringPtr> LocalVm::transitOf(const Actor& actor) const {
  for (auto& device : company.devices) {
    if (device.actor.get() == &actor && device.isDown) return "down"_kj;
    KJ_IF_MAYBE (spare, device.spare) {
      if (spare->actor.get() == &actor && !spare->isReady) return "starting"_kj;
    }
  }
  return isMoving(actor) ? kj::Maybe<kj::StringPtr>("replacing"_kj) : nullptr;
}

kj::Vector<Actor*> LocalVm::everyActor() {
  kj::Vector<Actor*> actors;
  company.forEach([&](Actor& actor) { actors.add(&actor); });
  KJ_IF_MAYBE (door, frontDoor) {
    KJ_IF_MAYBE (front, (*door)->actor()) {
      actors.add(front);
    }
  }
  return actors;
}

kj::Vector<kj::String> LocalVm::notes() {
  kj::Vector<kj::String> notes;
  for (auto& note : startNotes)
    notes.add(kj::str(note));
  if (stage.jail == sandbox::Jail::OFF) {
    notes.add(kj::str("no actor is jailed (--jail off): whoever breaks into one is you"));
  }
  if (stage.onlyReports) {
    notes.add(
        kj::str("FILTERS ONLY REPORT (troupe policy learn): actors may make system calls "
                "that their profiles do not allow; trust this guest, or stop it"));
  }
  if (stage.counts) {
    notes.add(kj::str("system calls are counted (", sandbox::COVERAGE_VARIABLE,
                      "): the jails are as closed as ever, and every call is slow"));
  }
  auto layers = stage.launcher.missingLayers();
  if (layers.size() > 0) {
    notes.add(kj::str("this kernel lacks layers of the jails that their profiles let be missing: ",
                      kj::strArray(layers, ", ")));
  }
  if (stage.jail == sandbox::Jail::ON && !stage.onlyReports && !inspection.comparesInstructions()) {
    notes.add(kj::str("the actors' filters are attested ", inspection.filterMethod()));
  }
  auto missing = groups.missing();
  if (missing.size() > 0) {
    notes.add(kj::str("not every limit of its jails is in force: ", missing,
                      "; `troupe doctor` says how to mend it"));
  }
  for (kj::uint i = 0; i < files.consoles.size(); i++) {
    if (files.consoles[i].kind != Endpoint::Kind::PTY) continue;
    notes.add(kj::str("the virtio ", guestsNameOf(plan.consoles, i), " is ",
                      files.consoles[i].slavePath));
  }
  return notes;
}

}  // namespace troupe
