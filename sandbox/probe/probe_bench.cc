#include "sandbox/probe/probe_bench.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/actor_setup.h"
#include "sandbox/probe/probe.capnp.h"
#include "third_party/linux_kvm.h"

namespace troupe::sandbox::probe {
namespace {

// Two of each range show what holds for all of it, where the others may be missing.
constexpr uint32_t MAX_OF_A_RANGE = 2;

// Processes at a time where each makes one call.
constexpr size_t WIDTH = 8;

// A probe that says nothing for so long will not say anything any more.
constexpr kj::Duration PATIENCE = 60 * kj::SECONDS;

kj::AutoCloseFd openProgram() {
  int fd;
  KJ_SYSCALL(fd = open("sandbox/probe/probe", O_RDONLY | O_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

kj::AutoCloseFd scratchFile() {
  char path[] = "/tmp/troupe-probe-XXXXXX";
  int fd;
  KJ_SYSCALL(fd = mkostemp(path, O_CLOEXEC));
  kj::AutoCloseFd file(fd);
  KJ_SYSCALL(unlink(path));
  KJ_SYSCALL(ftruncate(file, 1 << 20));
  // Its mode is not what should keep a jail from executing it.
  KJ_SYSCALL(fchmod(file, 0755));
  return file;
}

// MFD_NOEXEC_SEAL, since 6.3.
constexpr unsigned NOEXEC_SEAL = 8;

// As the broker makes it.
kj::AutoCloseFd guestMemory() {
  int fd;
  fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING | NOEXEC_SEAL);
  if (fd < 0) {
    KJ_SYSCALL(fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }
  kj::AutoCloseFd memory(fd);
  KJ_SYSCALL(ftruncate(memory, 1 << 20));
  KJ_SYSCALL(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
  return memory;
}

kj::AutoCloseFd listeningSocket(const std::string& abstractName) {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd listener(fd);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + 1, abstractName.data(), abstractName.size());
  socklen_t size = offsetof(sockaddr_un, sun_path) + 1 + abstractName.size();
  KJ_SYSCALL(bind(listener, reinterpret_cast<sockaddr*>(&address), size));
  KJ_SYSCALL(listen(listener, 1));
  return listener;
}

kj::Maybe<kj::AutoCloseFd> opened(int fd) {
  if (fd < 0) return nullptr;
  return kj::AutoCloseFd(fd);
}

bool nameIs(const ProfileFd& fd, const char* name) {
  return strcmp(fd.name, name) == 0;
}

void sendFds(int socket, kj::ArrayPtr<const int> fds) {
  char byte = 'f';
  iovec piece = {&byte, 1};
  auto control = kj::heapArray<char>(CMSG_SPACE(fds.size() * sizeof(int)));
  memset(control.begin(), 0, control.size());
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.begin();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  memcpy(CMSG_DATA(header), fds.begin(), fds.size() * sizeof(int));
  KJ_SYSCALL(sendmsg(socket, &message, MSG_NOSIGNAL));
}

// All of it, but to one that reads no more; its story tells.
void sendAll(int socket, kj::ArrayPtr<const kj::byte> bytes) {
  timeval patience = {PATIENCE / kj::SECONDS, 0};
  KJ_SYSCALL(setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)));
  while (bytes.size() > 0) {
    ssize_t sent = send(socket, bytes.begin(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes = bytes.slice(sent, bytes.size());
  }
}

void sayGo(int socket) {
  char byte = 'g';
  KJ_SYSCALL(send(socket, &byte, 1, MSG_NOSIGNAL)) {
    break;  // it has ended; its story tells
  }
}

std::string readRest(int fd) {
  char text[4096];
  ssize_t n = ::read(fd, text, sizeof(text));
  return std::string(text, n < 0 ? 0 : n);
}

// The end of a process as the outcome of the attempt it was at.
Report concluding(const Story& story, uint32_t index) {
  if (story.hung) return {index, Outcome::HUNG, 0};
  if (!story.greeted) return {index, Outcome::UNREADY, story.status};
  if (WIFSIGNALED(story.status)) {
    int signal = WTERMSIG(story.status);
    if (signal == SIGSYS) return {index, Outcome::KILLED, 0};
    return {index, Outcome::DIED, signal};
  }
  return {index, Outcome::DIED, ~int64_t(WEXITSTATUS(story.status))};
}

}  // namespace

struct ProbeBench::Order {
  ProbeConfig::Mode mode;
  std::string stage;
  const std::vector<ProfileFilter>& filters;
  const std::vector<RawCall>& calls;
  const std::vector<uint32_t>& scenarios;
};

ProbeBench::ProbeBench(const Profile& profile, LaunchFaults faults)
    : profile(profile),
      faults(faults),
      context(kj::setupAsyncIo()),
      program(openProgram()),
      launcher(context.unixEventPort, Jail::ON, faults),
      nurseryLauncher(context.unixEventPort, Jail::ON,
                      LaunchFaults{faults.leftOut | LaunchFaults::SECCOMP}) {
  for (size_t i = 0; i < profile.fdCount; i++) {
    takesFds |= nameIs(profile.fds[i], "rpc");
    isMute |= nameIs(profile.fds[i], "control");
  }
  makeFds();
  makeTargets();
}

void ProbeBench::makeFds() {
  for (size_t i = 0; i < profile.fdCount; i++) {
    const ProfileFd& slot = profile.fds[i];
    bool ours = slot.number == LOG_FD || slot.number == RPC_FD || slot.number == SETUP_FD;
    if (slot.made || ours) continue;
    uint32_t count = slot.optional ? std::min(slot.count, MAX_OF_A_RANGE) : slot.count;
    for (uint32_t index = 0; index < count; index++) {
      KJ_IF_MAYBE (fd, makeFd(slot.kind, slot.name)) {
        subjectFds.add(SubjectFd{slot, index, kj::mv(*fd)});
      } else {
        allGenuine &= slot.optional;
      }
    }
  }
}

kj::Maybe<kj::AutoCloseFd> ProbeBench::makeFd(kj::StringPtr kind, kj::StringPtr name) {
  if (kind == "socket" && name == "listen") {
    // A profile may have several: each has a name of its own.
    return listeningSocket(kj::str("troupe-probe-listen-", getpid(), "-", listeners++).cStr());
  }
  if (kind == "socket") {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    kept.add(kj::AutoCloseFd(fds[1]));
    return kj::AutoCloseFd(fds[0]);
  }
  if (kind == "file") return scratchFile();
  if (kind == "memfd") return guestMemory();
  if (kind == "eventfd") return opened(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (kind == "terminal" || kind == "any") {
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || unlockpt(master) < 0) return nullptr;
    kept.add(kj::AutoCloseFd(master));
    return opened(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  }
  if (kind == "kvm") {
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) return kj::AutoCloseFd(fd);
    allGenuine = false;
    return opened(open("/dev/null", O_RDWR | O_CLOEXEC));
  }
  if (kind == "character_device") {
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);  // a tap that is none yet
    if (fd >= 0) return kj::AutoCloseFd(fd);
    allGenuine = false;
    return opened(open("/dev/null", O_RDWR | O_CLOEXEC));
  }
  bool isVcpu = kind == "kvm_vcpu";
  if (!isVcpu && kind != "kvm_vm") return nullptr;
  KJ_IF_MAYBE (kvm, opened(open("/dev/kvm", O_RDWR | O_CLOEXEC))) {
    KJ_IF_MAYBE (vm, opened(ioctl(*kvm, KVM_CREATE_VM, 0))) {
      if (isVcpu) return opened(ioctl(*vm, KVM_CREATE_VCPU, 0));
      return kj::mv(*vm);
    }
  }
  return nullptr;
}

void ProbeBench::makeTargets() {
  targets.parent = getpid();
  targets.programFd = int(executableFd(profile));
  targets.abstractName = kj::str("troupe-probe-", getpid()).cStr();
  kept.add(listeningSocket(targets.abstractName));
  int fd;
  KJ_SYSCALL(fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd listener(fd);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  KJ_SYSCALL(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  KJ_SYSCALL(listen(listener, 1));
  socklen_t size = sizeof(address);
  KJ_SYSCALL(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size));
  targets.tcpPort = ntohs(address.sin_port);
  kept.add(kj::mv(listener));

  Running other = startActor("start", {});
  targets.sibling = other.child->pid();
  sibling = kj::mv(other.child);
  siblingSocket = kj::mv(other.socket);
}

// Fds that an actor takes by RPC reach one that has no RPC only where nothing is filtered.
bool ProbeBench::arrives(const SubjectFd& fd, bool inActor) const {
  return fd.slot.handed || takesFds || !inActor;
}

Running ProbeBench::start(Launcher& launcher, const Order& order) {
  int sockets[2], pipe[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  kj::AutoCloseFd ours(sockets[0]), theirs(sockets[1]);
  KJ_SYSCALL(pipe2(pipe, O_CLOEXEC));
  kj::AutoCloseFd log(pipe[0]), logEnd(pipe[1]);
  KJ_SYSCALL(fcntl(log, F_SETFL, O_NONBLOCK));

  bool inActor = order.mode == ProbeConfig::Mode::ACTOR;
  kj::Vector<HandedFd> handed;
  kj::Vector<const SubjectFd*> placed;
  kj::Vector<int> closed;
  for (const SubjectFd& fd : subjectFds) {
    if (!arrives(fd, inActor)) continue;
    if (fd.slot.handed) handed.add(HandedFd{fd.slot.name, fd.index, fd.fd});
    if (!fd.slot.handed) placed.add(&fd);
    if (fd.slot.closed) closed.add(fd.number());
  }
  bool hasEventLoop = false;
  for (size_t i = 0; i < profile.fdCount; i++) {
    const ProfileFd& slot = profile.fds[i];
    if (kj::StringPtr(slot.name) == "epoll") hasEventLoop = true;
    if (slot.number == RPC_FD) handed.add(HandedFd{slot.name, 0, theirs});
    if (slot.number == LOG_FD) handed.add(HandedFd{slot.name, 0, logEnd});
  }

  // In one segment: a reader of streams takes no more than some hundreds.
  capnp::MallocMessageBuilder message(1 << 18);
  auto config = message.initRoot<ProbeConfig>();
  config.setMode(order.mode);
  config.setHasEventLoop(hasEventLoop);
  config.setIsMute(inActor && isMute);
  config.setStage(order.stage);
  config.setScenarios(kj::arrayPtr(order.scenarios.data(), order.scenarios.size()));
  auto filters = config.initFilters(order.filters.size());
  for (size_t i = 0; i < order.filters.size(); i++) {
    filters.set(i, kj::arrayPtr(order.filters[i].program, order.filters[i].length).asBytes());
  }
  auto calls = config.initCalls(order.calls.size());
  for (size_t i = 0; i < order.calls.size(); i++) {
    calls[i].setNumber(order.calls[i].number);
    calls[i].setArguments(kj::arrayPtr(order.calls[i].arguments, 6));
    calls[i].setDeadly(order.calls[i].deadly);
  }
  auto slots = config.initPlaced(placed.size());
  for (size_t i = 0; i < placed.size(); i++) {
    slots[i].setName(placed[i]->slot.name);
    slots[i].setIndex(placed[i]->index);
  }
  config.setClosed(closed.asPtr());
  auto outside = config.initOutside();
  outside.setParent(targets.parent);
  outside.setSibling(targets.sibling);
  outside.setProgramFd(targets.programFd);
  outside.setTcpPort(targets.tcpPort);
  outside.setAbstractName(targets.abstractName);

  kj::Own<Child> child;
  if (profile.layers.helper.is) {
    auto arguments = kj::heapArray<kj::String>(1);
    arguments[0] = kj::str("helper");
    child =
        launcher.launch(profile, program, "probe", "probe0", handed, nullptr, nullptr, arguments);
    auto words = capnp::messageToFlatArray(message);
    sendAll(ours, words.asBytes());
  } else {
    child = launcher.launch(profile, program, "probe", "probe0", handed,
                            message.getRoot<capnp::AnyPointer>().asReader());
  }
  if (placed.size() > 0) {
    kj::Vector<int> fds;
    for (const SubjectFd* fd : placed)
      fds.add(fd->fd);
    sendFds(ours, fds);
  }
  return Running{kj::mv(child), kj::mv(ours), kj::mv(log), inActor && isMute};
}

Running ProbeBench::startActor(const std::string& stage, const std::vector<RawCall>& calls) {
  return start(launcher, {ProbeConfig::Mode::ACTOR, stage, {}, calls, {}});
}

void ProbeBench::waitUntilEntered(Running& running, Greeting& greeting) {
  bool hung = false;
  size_t n = read(running.reports(), &greeting, sizeof(greeting), hung);
  KJ_REQUIRE(n == sizeof(greeting), "the probe did not enter its stage", readRest(running.log));
}

// The launcher has work of its own when a child ends, so its loop turns meanwhile.
bool ProbeBench::becomesReadable(int fd) {
  kj::UnixEventPort::FdObserver observer(context.unixEventPort, fd,
                                         kj::UnixEventPort::FdObserver::OBSERVE_READ);
  auto readable = observer.whenBecomesReadable().then([]() { return true; });
  auto late = context.provider->getTimer().afterDelay(PATIENCE).then([]() { return false; });
  return readable.exclusiveJoin(kj::mv(late)).wait(context.waitScope);
}

size_t ProbeBench::read(int fd, void* bytes, size_t size, bool& hung) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = recv(fd, static_cast<char*>(bytes) + done, size - done, MSG_DONTWAIT);
    if (n < 0 && errno == ENOTSOCK) n = ::read(fd, static_cast<char*>(bytes) + done, size - done);
    if (n > 0) done += n;
    if (n == 0 || (n < 0 && errno != EAGAIN)) break;
    if (n < 0 && !becomesReadable(fd)) {
      hung = true;
      break;
    }
  }
  return done;
}

Story ProbeBench::finish(Running& running) {
  Story story;
  int reports = running.reports();
  size_t n = read(reports, &story.greeting, sizeof(Greeting), story.hung);
  story.greeted = n == sizeof(Greeting);
  Report report;
  while (!story.hung && read(reports, &report, sizeof(report), story.hung) == sizeof(report)) {
    story.reports.push_back(report);
  }
  if (story.hung) running.child->kill();
  story.status = running.child->onExit().wait(context.waitScope);
  story.log = readRest(running.log);
  return story;
}

std::vector<Report> ProbeBench::inChildren(const std::vector<ProfileFilter>& filters,
                                           const std::vector<RawCall>& calls,
                                           const std::vector<uint32_t>& scenarios) {
  // One setup message holds so many.
  constexpr size_t AT_ONCE = 8000;
  std::vector<Report> reports;
  for (size_t begin = 0; begin == 0 || begin < calls.size(); begin += AT_ONCE) {
    size_t end = std::min(calls.size(), begin + AT_ONCE);
    std::vector<RawCall> some(calls.begin() + begin, calls.begin() + end);
    bool last = end == calls.size();
    std::vector<uint32_t> then = last ? scenarios : std::vector<uint32_t>();
    Running running =
        start(nurseryLauncher, {ProbeConfig::Mode::NURSERY, "start", filters, some, then});
    sayGo(running.socket);
    Story story = finish(running);
    size_t expected = some.size() + then.size();
    KJ_REQUIRE(story.reports.size() == expected, "the nursery ended early", story.reports.size(),
               expected, story.status, story.log.c_str());
    for (Report& report : story.reports)
      report.index += begin;
    reports.insert(reports.end(), story.reports.begin(), story.reports.end());
  }
  return reports;
}

std::vector<Report> ProbeBench::inProcesses(const std::string& stage,
                                            const std::vector<RawCall>& calls) {
  std::vector<Report> reports;
  for (size_t begin = 0; begin < calls.size(); begin += WIDTH) {
    size_t end = std::min(calls.size(), begin + WIDTH);
    kj::Vector<Running> batch;
    for (size_t i = begin; i < end; i++) {
      batch.add(startActor(stage, {calls[i]}));
      sayGo(batch.back().socket);
    }
    for (Running& running : batch) {
      Story story = finish(running);
      uint32_t index = reports.size();
      reports.push_back(story.reports.empty()
                            ? concluding(story, index)
                            : Report{index, Outcome::RETURNED, story.reports[0].value});
      KJ_REQUIRE(reports.back().outcome != Outcome::UNREADY, story.log.c_str(), story.status);
    }
  }
  return reports;
}

std::vector<Report> ProbeBench::inOrder(const std::string& stage,
                                        const std::vector<RawCall>& calls) {
  std::vector<Report> reports;
  while (reports.size() < calls.size()) {
    Running running =
        startActor(stage, std::vector<RawCall>(calls.begin() + reports.size(), calls.end()));
    sayGo(running.socket);
    Story story = finish(running);
    KJ_REQUIRE(story.greeted, story.log.c_str(), story.status);
    for (const Report& report : story.reports)
      reports.push_back({uint32_t(reports.size()), report.outcome, report.value});
    if (reports.size() < calls.size()) reports.push_back(concluding(story, reports.size()));
  }
  return reports;
}

std::vector<int> ProbeBench::expectedFds(const std::string& stage) const {
  std::vector<int> numbers = {LOG_FD, RPC_FD};
  for (size_t i = 0; i < profile.fdCount; i++) {
    if (profile.fds[i].made) numbers.push_back(profile.fds[i].number);
  }
  for (const SubjectFd& fd : subjectFds) {
    if (arrives(fd, true) && (stage == "start" || !fd.slot.closed)) numbers.push_back(fd.number());
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace troupe::sandbox::probe
