#include "vmm/vm/vm_graph.h"

#include <kj/map.h>
#include <kj/vector.h>

#include "vmm/words/quote.h"

namespace troupe {

namespace {

using sandbox::ProfileFd;
using sandbox::ProfileMemory;
using sandbox::SeenFd;

constexpr uint32_t QUEUES_A_SLOT = 31;  // of the broker's ranges "kick" and "call"
constexpr size_t MOST_EXTRAS = 64;
constexpr size_t LONGEST = 200;

constexpr kj::StringPtr TROUPE = "troupe"_kj;
constexpr kj::StringPtr BROKER = "broker"_kj;
constexpr kj::StringPtr ITSELF = "itself"_kj;
constexpr kj::StringPtr RAM = "the guest's RAM"_kj;

// What was found out about one fd.
struct Finding {
  kj::String leadsTo;
  kj::Maybe<kj::String> extra;  // why nobody asked for it: what follows the process's name
};

Finding asked(kj::StringPtr leadsTo) {
  return {kj::str(leadsTo), nullptr};
}

template <typename... Parts>
Finding extra(kj::StringPtr leadsTo, Parts&&... parts) {
  return {kj::str(leadsTo), kj::str(kj::fwd<Parts>(parts)...)};
}

struct Edge {
  kj::String from, to, what;
  bool asked;
};

class Comparison {
 public:
  Comparison(kj::ArrayPtr<const GraphSubject> subjects, const GraphPlan& plan)
      : subjects(subjects), plan(plan) {
    for (auto& subject : subjects) {
      for (auto& fd : subject.fds) {
        if (fd.object.size() == 0) continue;
        holders
            .findOrCreate(fd.object,
                          [&]() {
                            return decltype(holders)::Entry{fd.object, kj::Vector<Holder>()};
                          })
            .add(Holder{&subject, &fd});
      }
      for (auto& given : subject.handed) {
        if (subject.name == BROKER && given.name == "ram") ramObject = given.object;
      }
    }
  }

  void fill(kj::ArrayPtr<const GraphTransit> transits, kj::ArrayPtr<const kj::String> jails,
            VmGraph::Builder graph) {
    auto processes = graph.initProcesses(subjects.size() + transits.size());
    for (kj::uint i = 0; i < subjects.size(); i++)
      fillProcess(subjects[i], processes[i]);
    for (kj::uint i = 0; i < transits.size(); i++)
      fillTransit(transits[i], processes[subjects.size() + i]);
    for (auto& jail : jails)
      extras.add(kj::str(jail));
    auto list = graph.initEdges(edges.size());
    for (kj::uint i = 0; i < edges.size(); i++) {
      list[i].setFrom(edges[i].from);
      list[i].setTo(edges[i].to);
      list[i].setWhat(edges[i].what);
      list[i].setAsked(edges[i].asked);
    }
    auto texts = graph.initExtras(kj::min(extras.size(), MOST_EXTRAS));
    for (kj::uint i = 0; i < texts.size(); i++)
      texts.set(i, extras[i]);
  }

 private:
  struct Holder {
    const GraphSubject* subject;
    const SeenFd* fd;
  };

  // Who else has an fd that leads to the same.
  // Processes of one device, which take turns, have a name in common; what one of them shares with
  // `partner` all do.
  kj::Maybe<const Holder&> otherHolder(const GraphSubject& subject, const SeenFd& fd,
                                       const SeenFd* expected = nullptr,
                                       kj::StringPtr partner = nullptr) {
    KJ_IF_MAYBE (all, holders.find(fd.object)) {
      for (auto& one : *all) {
        bool isPartner = expected != nullptr && one.subject->name == partner;
        if (one.subject->name != subject.name && one.fd != expected && !isPartner) return one;
      }
    }
    return nullptr;
  }

  // Neighbours under one name of the profile, with one finding.
  struct Row {
    const SeenFd* first;
    uint32_t last;
    kj::String leadsTo;
    bool asked;
  };

  void fillProcess(const GraphSubject& subject, GraphProcess::Builder to) {
    kj::Vector<Row> rows;
    for (auto& fd : subject.fds) {
      auto finding = judge(subject, fd);
      KJ_IF_MAYBE (why, finding.extra) {
        extras.add(kj::str(subject.name, " ", *why));
      }
      bool isAsked = finding.extra == nullptr;
      addEdges(subject, fd, finding.leadsTo, isAsked);
      if (rows.size() > 0) {
        Row& before = rows.back();
        bool continues = fd.entry != nullptr && fd.entry == before.first->entry &&
                         before.leadsTo == finding.leadsTo && before.asked == isAsked;
        if (continues) {
          before.last = fd.number;
          continue;
        }
      }
      rows.add(Row{&fd, fd.number, kj::mv(finding.leadsTo), isAsked});
    }
    // What is mapped needs no fd.
    if (!subject.memory.startsWith("none")) addEdge(subject.name, RAM, subject.memory, true);
    for (auto& mapping : subject.hostMemory)
      addEdge(subject.name, mapping.name, kj::str("maps ", mapping.bytes >> 10, " KiB"), true);
    to.setName(subject.name);
    to.setKind(subject.kind);
    to.setPid(subject.pid);
    to.setProfile(subject.profile->source);
    to.setStage(subject.stage);
    to.setMemory(subject.memory);
    auto list = to.initFds(rows.size());
    for (kj::uint i = 0; i < rows.size(); i++)
      fillRow(rows[i], list[i]);
  }

  static void fillTransit(const GraphTransit& transit, GraphProcess::Builder to) {
    to.setName(transit.name);
    to.setKind(transit.kind);
    to.setProfile(transit.profile);
    to.setStage(transit.stage);
  }

  static void fillRow(const Row& row, GraphFd::Builder to) {
    auto& fd = *row.first;
    to.setName(fd.entry == nullptr ? "" : fd.entry->name);
    to.setKind(fd.entry == nullptr ? "" : fd.entry->kind);
    to.setNumbers(row.last == fd.number ? kj::str(fd.number) : kj::str(fd.number, "-", row.last));
    // A path is its owner's word, and a socket's name may be a stranger's.
    to.setFound(escape(fd.link, LONGEST));
    to.setLeadsTo(escape(row.leadsTo, LONGEST));
    to.setAsked(row.asked);
  }

  Finding judge(const GraphSubject& subject, const SeenFd& fd) {
    if (fd.entry == nullptr && isHelpersOwn(subject, fd)) {
      return asked(fd.isSocket() ? "the network"_kj : ITSELF);
    }
    if (fd.entry == nullptr) {
      if (isOnItsWay(subject, fd)) return asked("its place");
      return stray(subject, fd,
                   kj::str("holds fd ", fd.number, ", for which its profile has no name"));
    }
    if (fd.entry->handed) return judgeHanded(subject, fd);
    if (fd.isEventFd()) return judgeEventFd(subject, fd);
    if (fd.isSocket()) return judgeSocket(subject, fd);
    if (fd.isPipe()) {
      return stray(subject, fd, kj::str("holds a pipe as ", nameOf(fd), " that nobody gave it"));
    }
    if (fd.link.startsWith("/memfd:")) return judgeMemory(subject, fd);
    if (fd.isFile()) return judgeFile(subject, fd);
    return asked(ITSELF);
  }

  // A helper is another's program: what it opens has no name, and must be nobody's else.
  bool isHelpersOwn(const GraphSubject& subject, const SeenFd& fd) {
    return subject.profile->layers.helper.is && otherHolder(subject, fd) == nullptr;
  }

  // What arrives by RPC takes the lowest free number before it is put in its place.
  static bool isOnItsWay(const GraphSubject& subject, const SeenFd& fd) {
    if (fd.object.size() == 0 || !(fd.isSocket() || fd.isFile())) return false;
    for (auto& other : subject.fds) {
      bool placed = other.entry != nullptr && !other.entry->handed && !other.entry->made;
      if (placed && other.object == fd.object) return true;
    }
    return false;
  }

  Finding judgeHanded(const GraphSubject& subject, const SeenFd& fd) {
    for (auto& given : subject.handed) {
      if (given.name != fd.entry->name || given.index != fd.index()) continue;
      if (given.object == fd.object || given.object.size() == 0) {
        return asked(whomHandedLeadsTo(subject, fd));
      }
      return stray(subject, fd,
                   kj::str("has something else as ", nameOf(fd), " than it was handed"));
    }
    return stray(subject, fd, kj::str("holds ", nameOf(fd), ", which nobody handed it"));
  }

  kj::StringPtr whomHandedLeadsTo(const GraphSubject& subject, const SeenFd& fd) {
    kj::StringPtr name = fd.entry->name;
    if (name == "log") return TROUPE;
    if (name == "rpc") return isDevice(subject) ? BROKER : TROUPE;
    if (name == "uart") return BROKER;
    if (name == "connector") return TROUPE;
    if (name == "witness") return TROUPE;
    if (name == "before") return ITSELF;  // another process of this device, or nobody any more
    if (name == "frames") return sibling(subject, "passt", "net", fd);
    if (name == "socket") return sibling(subject, "net", "passt", fd);
    if (subject.name == BROKER && name == "serial") return "serial"_kj;
    if (isRam(fd)) return RAM;
    return fd.link;
  }

  // "net1" of "passt1": each network device has its own helper, if it has one.
  kj::StringPtr sibling(const GraphSubject& subject, kj::StringPtr own, kj::StringPtr wanted,
                        const SeenFd& fd) {
    if (subject.name.startsWith(own)) {
      auto name = kj::str(wanted, subject.name.slice(own.size()));
      for (auto& other : subjects)
        if (other.name == name) return other.name;
    }
    return fd.link;
  }

  Finding judgeEventFd(const GraphSubject& subject, const SeenFd& fd) {
    auto partner = partnerOf(subject, fd);
    auto partnersName = subject.name == BROKER ? deviceOf(fd) : BROKER;
    KJ_IF_MAYBE (other, otherHolder(subject, fd, partner, partnersName)) {
      return extra(other->subject->name, "shares the eventfd ", nameOf(fd), " (", fd.object,
                   ") with ", other->subject->name, ", fd ", other->fd->number);
    }
    if (partner != nullptr && partner->object != fd.object) {
      return extra(ITSELF, "has another eventfd as ", nameOf(fd),
                   " than the other side of its queue");
    }
    if (partner == nullptr) return asked(ITSELF);
    return asked(subject.name == BROKER ? deviceOf(fd) : BROKER);
  }

  // The fd of the other process that a queue's eventfd is to be shared with, if it is open.
  const SeenFd* partnerOf(const GraphSubject& subject, const SeenFd& fd) {
    kj::StringPtr name = fd.entry->name;
    if (name != "kick" && name != "call") return nullptr;
    bool isBroker = subject.name == BROKER;
    if (!isBroker && !isDevice(subject)) return nullptr;
    auto wanted = isBroker ? deviceOf(fd) : BROKER;
    uint32_t index =
        isBroker ? fd.index() % QUEUES_A_SLOT : slotOf(subject.name) * QUEUES_A_SLOT + fd.index();
    for (auto& other : subjects) {
      if (other.name != wanted) continue;
      for (auto& one : other.fds) {
        if (one.entry != nullptr && one.entry->name == name && one.index() == index) return &one;
      }
    }
    return nullptr;
  }

  Finding judgeSocket(const GraphSubject& subject, const SeenFd& fd) {
    if (subject.name == BROKER && isDevicePipe(fd)) {
      auto device = fd.index() < plan.devices.size()
                        ? kj::Maybe<const GraphPlan::Device&>(plan.devices[fd.index()])
                        : nullptr;
      KJ_IF_MAYBE (known, device) {
        bool isSpares = known->spareObject.size() > 0 && known->spareObject == fd.object;
        bool isKnown = known->brokerObject == fd.object || isSpares;
        if (isKnown || known->isMoving) return asked(known->name);
      }
      return stray(
          subject, fd,
          kj::str("holds as ", nameOf(fd), " a socket that is not its end of a device's pipe"));
    }
    if (otherHolder(subject, fd) != nullptr) {
      return stray(subject, fd, kj::str("holds a socket as ", nameOf(fd), " that is another's"));
    }
    if (subject.kind == "front") return asked("clients");
    for (auto& given : subject.handed) {
      if (given.listens || given.name == "connector") return asked("clients");
    }
    return stray(subject, fd, kj::str("holds a socket as ", nameOf(fd), " that nobody gave it"));
  }

  Finding judgeMemory(const GraphSubject& subject, const SeenFd& fd) {
    bool isGranted = subject.profile->layers.memory.access != ProfileMemory::NONE;
    if (isRam(fd) && isGranted) return asked(RAM);
    return stray(subject, fd, kj::str("holds memory as ", nameOf(fd), " that it was not granted"));
  }

  Finding judgeFile(const GraphSubject& subject, const SeenFd& fd) {
    for (auto& object : plan.bootFiles) {
      if (subject.name != BROKER || object != fd.object) continue;
      if (plan.isBooting) return asked(fd.link);
      return stray(subject, fd,
                   kj::str("still holds ", nameOf(fd), " though the guest has booted"));
    }
    return stray(subject, fd, kj::str("holds a file as ", nameOf(fd), " that nobody gave it"));
  }

  // An extra; if somebody else has the same it is an edge between the two.
  Finding stray(const GraphSubject& subject, const SeenFd& fd, kj::String why) {
    auto shown = escape(fd.link, LONGEST);
    KJ_IF_MAYBE (other, otherHolder(subject, fd)) {
      return extra(other->subject->name, why, ": ", shown, ", which is ", other->subject->name,
                   "'s fd ", other->fd->number);
    }
    return extra(fd.link, why, ": ", shown);
  }

  // By turns: a successor's pipe has the place that the one before did not have.
  static bool isDevicePipe(const SeenFd& fd) {
    kj::StringPtr name = fd.entry->name;
    return name == "device" || name == "successor";
  }

  bool isRam(const SeenFd& fd) const { return ramObject.size() > 0 && fd.object == ramObject; }

  bool isDevice(const GraphSubject& subject) const {
    return slotOf(subject.name) < plan.devices.size();
  }

  size_t slotOf(kj::StringPtr name) const {
    size_t slot = 0;
    while (slot < plan.devices.size() && plan.devices[slot].name != name)
      slot++;
    return slot;
  }

  kj::StringPtr deviceOf(const SeenFd& fd) const {
    size_t slot = fd.index() / QUEUES_A_SLOT;
    return slot < plan.devices.size() ? plan.devices[slot].name : ITSELF;
  }

  static kj::String nameOf(const SeenFd& fd) {
    if (fd.entry == nullptr) return kj::str("fd ", fd.number);
    if (fd.entry->count == 1) return kj::str("\"", fd.entry->name, "\"");
    return kj::str("\"", fd.entry->name, "[", fd.index(), "]\"");
  }

  void addEdges(const GraphSubject& subject, const SeenFd& fd, kj::StringPtr to, bool isAsked) {
    if (to == ITSELF || to == "its place") return;
    if (!isAsked) return addEdge(subject.name, to, nameOf(fd), false);
    if (fd.entry == nullptr) return addEdge(subject.name, to, "sockets", true);  // a helper's own
    kj::StringPtr name = fd.entry->name;
    if (name == "rpc") {
      bool device = isDevice(subject);
      addEdge(to, subject.name,
              device                   ? "calls Device"
              : subject.name == BROKER ? "calls Broker"
                                       : "calls FrontEnd",
              true);
      if (device) addEdge(subject.name, to, "calls DeviceHost", true);
      if (subject.kind == "front") addEdge(subject.name, to, "calls Vm", true);
    } else if (name == "log") {
      addEdge(subject.name, to, "log lines", true);
    } else if (name == "connector") {
      addEdge(subject.name, to, "calls Connector", true);
    } else if (subject.name == BROKER && isDevicePipe(fd)) {
      // Its device's "rpc" tells.
    } else if (name == "uart" || (subject.name == BROKER && name == "serial")) {
      addEdge(subject.name, to, "bytes of the serial port", true);
    } else if (name == "kick") {
      if (subject.name == BROKER) addEdge(BROKER, to, "notifications", true);
    } else if (name == "call") {
      if (subject.name != BROKER) addEdge(subject.name, BROKER, "interrupts", true);
    } else {
      addEdge(subject.name, to, to == RAM ? kj::str(subject.memory) : kj::str(name), true);
    }
  }

  template <typename What>
  void addEdge(kj::StringPtr from, kj::StringPtr to, What&& what, bool isAsked) {
    auto text = kj::str(what);
    for (auto& edge : edges) {
      if (edge.from == from && edge.to == to && edge.what == text) {
        edge.asked = edge.asked && isAsked;
        return;
      }
    }
    edges.add(Edge{escape(from, LONGEST), escape(to, LONGEST), kj::mv(text), isAsked});
  }

  kj::ArrayPtr<const GraphSubject> subjects;
  const GraphPlan& plan;
  kj::HashMap<kj::StringPtr, kj::Vector<Holder>> holders;  // by object
  kj::StringPtr ramObject;
  kj::Vector<Edge> edges;
  kj::Vector<kj::String> extras;
};

}  // namespace

void compareGraph(kj::ArrayPtr<const GraphSubject> subjects,
                  kj::ArrayPtr<const GraphTransit> transits, const GraphPlan& plan,
                  kj::ArrayPtr<const kj::String> jails, VmGraph::Builder graph) {
  Comparison(subjects, plan).fill(transits, jails, graph);
}

}  // namespace troupe
