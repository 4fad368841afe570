#pragma once

#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <string>
#include <vector>

#include "sandbox/launcher.h"
#include "sandbox/probe/attempt.h"
#include "sandbox/probe/scenarios.h"

namespace troupe::sandbox::probe {

// An fd of a profile, of its kind, as the test hands it over.
struct SubjectFd {
  const ProfileFd& slot;
  uint32_t index;
  kj::AutoCloseFd fd;
  int number() const { return slot.number + index; }
};

// A probe that waits for its go, or has ended.
struct Running {
  kj::Own<Child> child;
  kj::AutoCloseFd socket;
  kj::AutoCloseFd log;
  bool reportsToLog = false;
  int reports() const { return reportsToLog ? log : socket; }
};

// How a probe ended and what it reported before.
struct Story {
  bool greeted = false;
  Greeting greeting = {};
  std::vector<Report> reports;
  int status = 0;
  bool hung = false;  // and was killed for it
  std::string log;
};

// Starts probes in the jail of one profile, with an fd of the right kind for each of its fds. Runs
// from the root of the runfiles.
class ProbeBench {
 public:
  explicit ProbeBench(const Profile& profile, LaunchFaults faults = {});

  // All attempts from one process without a start filter, each in a child that first takes
  // `filters`. One report for each call, then for each of these scenarios.
  std::vector<Report> inChildren(const std::vector<ProfileFilter>& filters,
                                 const std::vector<RawCall>& calls,
                                 const std::vector<uint32_t>& scenarios);

  // Each call in a process of its own that the launcher started and that entered `stage` itself.
  std::vector<Report> inProcesses(const std::string& stage, const std::vector<RawCall>& calls);

  // The same for calls that are let through: as many in one process as it survives.
  std::vector<Report> inOrder(const std::string& stage, const std::vector<RawCall>& calls);

  Running startActor(const std::string& stage, const std::vector<RawCall>& calls);
  void waitUntilEntered(Running& running, Greeting& greeting);
  Story finish(Running& running);

  // What the process of startActor() should have open once it is in `stage`.
  std::vector<int> expectedFds(const std::string& stage) const;
  // Every fd is of its profile's kind; else something stands in for KVM.
  bool genuine() const { return allGenuine; }

  kj::WaitScope& scope() { return context.waitScope; }
  const Targets& outside() const { return targets; }
  const kj::Vector<SubjectFd>& fds() const { return subjectFds; }

 private:
  struct Order;
  Running start(Launcher& launcher, const Order& order);
  bool becomesReadable(int fd);
  // Fewer bytes at the end of the stream, or (`hung`) when nothing came for too long.
  size_t read(int fd, void* bytes, size_t size, bool& hung);
  void makeFds();
  kj::Maybe<kj::AutoCloseFd> makeFd(kj::StringPtr kind, kj::StringPtr name);
  void makeTargets();
  bool arrives(const SubjectFd& fd, bool inActor) const;

  const Profile& profile;
  LaunchFaults faults;
  kj::AsyncIoContext context;
  kj::AutoCloseFd program;
  Launcher launcher;
  Launcher nurseryLauncher;
  kj::Vector<SubjectFd> subjectFds;
  kj::Vector<kj::AutoCloseFd> kept;  // peers of what was handed out, listening sockets
  Targets targets;
  kj::Own<Child> sibling;
  kj::AutoCloseFd siblingSocket;
  int listeners = 0;      // made so far
  bool takesFds = false;  // its start filter lets it receive fds on fd 3
  bool isMute = false;    // its filters let it neither read nor write fd 3
  bool allGenuine = true;
};

}  // namespace troupe::sandbox::probe
