#include "vmm/vm/vm_graph.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

using sandbox::Profile;
using sandbox::ProfileFd;
using sandbox::ProfileMemory;
using sandbox::SeenFd;

const ProfileFd BROKER_FDS[] = {
    {"log", 2, 1, "pipe", true, false, false, false},
    {"rpc", 3, 1, "socket", true, false, false, false},
    {"serial", 17, 1, "socket", true, true, false, false},
    {"ram", 19, 1, "memfd", true, false, false, false},
    {"mailbox", 20, 1, "eventfd", false, false, false, false},
    {"kernel", 21, 1, "file", false, true, false, false},
    {"device", 32, 31, "socket", false, true, false, false},
    {"kick", 1024, 961, "eventfd", false, true, false, false},
    {"call", 2048, 961, "eventfd", false, true, false, false},
};
const ProfileFd DEVICE_FDS[] = {
    {"log", 2, 1, "pipe", true, false, false, false},
    {"rpc", 3, 1, "socket", true, false, false, false},
    {"ram", 16, 1, "memfd", false, false, false, false},
    {"disk", 17, 1, "file", true, true, false, false},
    {"listen", 18, 1, "socket", true, true, false, false},
    {"client", 24, 4, "socket", false, true, false, false},
    {"kick", 32, 16, "eventfd", false, true, false, false},
    {"call", 64, 16, "eventfd", false, true, false, false},
};

template <size_t count>
Profile profileOf(const ProfileFd (&fds)[count], ProfileMemory::Access access) {
  Profile profile = {};
  profile.source = "a.profile";
  profile.fds = fds;
  profile.fdCount = count;
  profile.layers.memory.access = access;
  return profile;
}

// A VM of a broker and two devices that hold what they should, for tests to spoil.
class Bench {
 public:
  struct Process {
    kj::String name;
    const Profile* profile;
    kj::Vector<HandedObject> handed;
    kj::Vector<SeenFd> fds;
  };

  Bench() {
    auto& broker = add("broker", brokerProfile);
    give(broker, "rpc", 3, "socket:[1]");
    give(broker, "ram", 19, "file:[0:1:99]", "/memfd:guest-ram (deleted)");
    have(broker, 20, "eventfd:[7]", "anon_inode:[eventfd]");
    for (uint32_t i = 0; i < 2; i++) {
      auto& device = add(kj::str("blk", i), deviceProfile);
      give(device, "rpc", 3, kj::str("socket:[", 20 + i, "]"));
      give(device, "disk", 17, kj::str("file:[8:1:", i, "]"), kj::str("/disk", i));
      have(device, 16, "file:[0:1:99]", "/memfd:guest-ram (deleted)");
      have(broker, 32 + i, kj::str("socket:[", 10 + i, "]"));
      brokerObjects.add(kj::str("socket:[", 10 + i, "]"));
      for (auto base : {1024u, 2048u}) {
        auto object = kj::str("eventfd:[", base + i, "]");
        have(broker, base + i * 31, kj::str(object), "anon_inode:[eventfd]");
        have(device, base == 1024 ? 32 : 64, kj::mv(object), "anon_inode:[eventfd]");
      }
    }
  }

  Process& operator[](size_t index) { return *processes[index]; }

  void have(Process& process, uint32_t number, kj::StringPtr object, kj::StringPtr link = nullptr) {
    SeenFd fd = {number, nullptr, kj::str(link == nullptr ? object : link), kj::str(object)};
    for (size_t i = 0; i < process.profile->fdCount; i++) {
      auto& entry = process.profile->fds[i];
      if (number >= entry.number && number < entry.number + entry.count) fd.entry = &entry;
    }
    process.fds.add(kj::mv(fd));
  }

  void give(Process& process, kj::StringPtr name, uint32_t number, kj::StringPtr object,
            kj::StringPtr link = nullptr, bool listens = false) {
    process.handed.add(HandedObject{kj::str(name), 0, kj::str(object), listens});
    have(process, number, object, link);
  }

  // The extras, each a line.
  std::string look() {
    kj::Vector<GraphSubject> subjects;
    kj::Vector<GraphTransit> transits;
    for (auto& one : processes) {
      if (isMoving && one->name == "blk0") {
        transits.add(GraphTransit{one->name, "blk", one->profile->source, "replacing"});
        continue;
      }
      auto fds = KJ_MAP(fd, one->fds) {
        return SeenFd{fd.number, fd.entry, kj::str(fd.link), kj::str(fd.object)};
      };
      subjects.add(GraphSubject{one->name, "blk", 1, one->profile, "run", kj::str("all"),
                                one->handed, kj::mv(fds)});
    }
    kj::Vector<GraphPlan::Device> devices;
    for (size_t i = 0; i < brokerObjects.size(); i++) {
      auto& device = devices.add(GraphPlan::Device{processes[1 + i]->name, brokerObjects[i]});
      device.isMoving = isMoving && i == 0;
    }
    GraphPlan plan{devices.releaseAsArray(), kj::arr(kj::str("file:[8:1:500]")), isBooting};
    graph = message.initRoot<VmGraph>();
    compareGraph(subjects, transits, plan, nullptr, graph);
    std::string text;
    for (auto extra : graph.getExtras())
      text += std::string(extra.cStr()) + "\n";
    return text;
  }

  std::string edges() {
    std::string text;
    for (auto edge : graph.getEdges()) {
      text += std::string(edge.getFrom().cStr()) + " -> " + edge.getTo().cStr() + ": " +
              edge.getWhat().cStr() + (edge.getAsked() ? "\n" : " !\n");
    }
    return text;
  }

  std::string stages() {
    std::string text;
    for (auto process : graph.getProcesses())
      text += std::string(process.getName().cStr()) + ": " + process.getStage().cStr() + "\n";
    return text;
  }

  bool isBooting = false;
  bool isMoving = false;  // the first device

 private:
  Process& add(kj::StringPtr name, const Profile& profile) {
    return *processes.add(kj::heap<Process>(Process{kj::str(name), &profile, {}, {}}));
  }

  Profile brokerProfile = profileOf(BROKER_FDS, ProfileMemory::ALL);
  Profile deviceProfile = profileOf(DEVICE_FDS, ProfileMemory::ALL);
  kj::Vector<kj::Own<Process>> processes;
  kj::Vector<kj::String> brokerObjects;
  capnp::MallocMessageBuilder message;
  VmGraph::Builder graph = nullptr;
};

TEST(VmGraph, AVmThatHoldsWhatItWasGivenHasNothingExtra) {
  Bench bench;
  EXPECT_EQ(bench.look(), "");
  EXPECT_EQ(bench.edges(),
            "troupe -> broker: calls Broker\n"
            "broker -> the guest's RAM: all\n"
            "broker -> blk0: notifications\n"
            "broker -> blk1: notifications\n"
            "broker -> blk0: calls Device\n"
            "blk0 -> broker: calls DeviceHost\n"
            "blk0 -> /disk0: disk\n"
            "blk0 -> the guest's RAM: all\n"
            "blk0 -> broker: interrupts\n"
            "broker -> blk1: calls Device\n"
            "blk1 -> broker: calls DeviceHost\n"
            "blk1 -> /disk1: disk\n"
            "blk1 -> the guest's RAM: all\n"
            "blk1 -> broker: interrupts\n");
}

TEST(VmGraph, AnFdThatTheProfileDoesNotNameIsAnEdgeToWhoElseHoldsIt) {
  Bench bench;
  bench.have(bench[1], 9, "socket:[21]");
  EXPECT_EQ(
      bench.look(),
      "blk0 holds fd 9, for which its profile has no name: socket:[21], which is blk1's fd 3\n");
  EXPECT_NE(bench.edges().find("blk0 -> blk1: fd 9 !\n"), std::string::npos) << bench.edges();
}

TEST(VmGraph, WhatItWasHandedCannotBeSomethingElse) {
  Bench bench;
  bench[1].fds[1].object = kj::str("file:[8:1:1]");
  EXPECT_NE(bench.look().find("blk0 has something else as \"disk\" than it was handed"),
            std::string::npos);
  Bench another;
  another[2].handed.removeLast();
  EXPECT_NE(another.look().find("blk1 holds \"disk\", which nobody handed it"), std::string::npos);
}

TEST(VmGraph, AnEventFdOfAnotherDeviceIsAnEdge) {
  Bench bench;
  bench.have(bench[1], 33, "eventfd:[1025]", "anon_inode:[eventfd]");
  auto extras = bench.look();
  EXPECT_NE(extras.find("blk0 shares the eventfd \"kick[1]\" (eventfd:[1025]) with "),
            std::string::npos)
      << extras;
  EXPECT_NE(extras.find("blk1 shares the eventfd"), std::string::npos) << extras;
}

TEST(VmGraph, AQueueWithTwoEventFdsIsNotConnected) {
  Bench bench;
  for (auto& fd : bench[1].fds)
    if (fd.number == 64) fd.object = kj::str("eventfd:[5555]");
  EXPECT_NE(bench.look().find("blk0 has another eventfd as \"call[0]\" than the other side"),
            std::string::npos);
}

TEST(VmGraph, TheBrokerHoldsTheKernelWhileItBootsAndNoLonger) {
  Bench bench;
  bench.have(bench[0], 21, "file:[8:1:500]", "/boot/vmlinuz");
  EXPECT_EQ(bench.look(),
            "broker still holds \"kernel\" though the guest has booted: /boot/vmlinuz\n");
  bench.isBooting = true;
  EXPECT_EQ(bench.look(), "");
  // As it arrived, and is closed a moment later.
  bench.have(bench[0], 5, "file:[8:1:500]", "/boot/vmlinuz");
  EXPECT_EQ(bench.look(), "");
  bench.have(bench[0], 6, "file:[8:1:501]", "/etc/shadow");
  EXPECT_EQ(bench.look(), "broker holds fd 6, for which its profile has no name: /etc/shadow\n");
}

TEST(VmGraph, OnlyWhoListensHasClients) {
  Bench bench;
  bench.have(bench[1], 24, "socket:[900]");
  EXPECT_EQ(bench.look(),
            "blk0 holds a socket as \"client[0]\" that nobody gave it: socket:[900]\n");
  bench.give(bench[1], "listen", 18, "socket:[800]", nullptr, true);
  EXPECT_EQ(bench.look(), "");
  EXPECT_NE(bench.edges().find("blk0 -> clients: client\n"), std::string::npos) << bench.edges();
  bench.have(bench[1], 25, "socket:[1]");
  EXPECT_EQ(bench.look(),
            "blk0 holds a socket as \"client[1]\" that is another's: socket:[1], which is broker's "
            "fd 3\n");
}

TEST(VmGraph, AHelpersOwnSocketsAreItsOwnAndNobodyElses) {
  Bench bench;
  Profile helper = *bench[2].profile;
  helper.layers.helper.is = true;
  bench[2].profile = &helper;
  bench.have(bench[2], 9, "socket:[901]");
  bench.have(bench[2], 10, "", "anon_inode:[eventpoll]");
  EXPECT_EQ(bench.look(), "");
  EXPECT_NE(bench.edges().find("blk1 -> the network: sockets\n"), std::string::npos)
      << bench.edges();
  bench.have(bench[2], 11, "socket:[20]");
  EXPECT_EQ(
      bench.look(),
      "blk1 holds fd 11, for which its profile has no name: socket:[20], which is blk0's fd 3\n");
}

TEST(VmGraph, MemoryThatIsNotTheGuestsIsExtra) {
  Bench bench;
  for (auto& fd : bench[2].fds)
    if (fd.number == 16) fd.object = kj::str("file:[0:1:77]");
  EXPECT_NE(bench.look().find("blk1 holds memory as \"ram\" that it was not granted"),
            std::string::npos);
}

TEST(VmGraph, ASocketThatIsNotADevicesPipeIsExtra) {
  Bench bench;
  bench.have(bench[0], 40, "socket:[666]");
  EXPECT_NE(bench.look().find("broker holds as \"device[8]\" a socket that is not its end"),
            std::string::npos);
}

TEST(VmGraph, OneThatIsBeingReplacedIsNotComparedAndItsPipeMayBeThatOfTheOneBefore) {
  Bench bench;
  bench.have(bench[1], 9, "socket:[21]");
  for (auto& fd : bench[0].fds)
    if (fd.number == 32) fd.object = kj::str("socket:[4711]");
  EXPECT_NE(bench.look(), "");
  bench.isMoving = true;
  EXPECT_EQ(bench.look(), "");
  EXPECT_EQ(bench.stages(), "broker: run\nblk1: run\nblk0: replacing\n");
  // All others are.
  bench.have(bench[2], 9, "socket:[4711]");
  EXPECT_NE(bench.look().find("blk1 holds fd 9, for which its profile has no name"),
            std::string::npos);
}

}  // namespace
}  // namespace troupe
