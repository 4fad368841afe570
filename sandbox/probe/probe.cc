// The probe: takes an actor's place in its jail and tries what an actor must not be able to do.
// Its test tells it what; see README.md.

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "sandbox/actor_setup.h"
#include "sandbox/probe/attempt.h"
#include "sandbox/probe/probe.capnp.h"
#include "sandbox/probe/scenarios.h"

namespace troupe::sandbox::probe {
namespace {

constexpr int TEST_FD = 3;  // a socket in every profile

// Where an actor reports to.
int reportFd = TEST_FD;

// Far longer than any call takes that does not wait for something, on a busy machine too.
constexpr timespec PATIENCE = {5, 0};

// The largest number of fds a message can carry.
constexpr size_t MAX_FDS = 253;

void send(const void* bytes, size_t size, int fd = reportFd) {
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    long written = perform({SYS_write, {uint64_t(fd), uint64_t(from), size}});
    if (written <= 0) perform({SYS_exit_group, {MUTE}});
    from += written;
    size -= written;
  }
}

RawCall rawCall(Call::Reader call) {
  RawCall raw = {call.getNumber(), {}};
  for (kj::uint i = 0; i < call.getArguments().size() && i < 6; i++)
    raw.arguments[i] = call.getArguments()[i];
  return raw;
}

// The fds that the broker would send come in one message from the test.
void receiveFds(const ActorSetup& setup, ProbeConfig::Reader config) {
  auto placed = config.getPlaced();
  if (placed.size() == 0) return;
  char byte;
  iovec piece = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n;
  KJ_SYSCALL(n = recvmsg(TEST_FD, &message, MSG_CMSG_CLOEXEC));
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  KJ_REQUIRE(n == 1 && header != nullptr && header->cmsg_type == SCM_RIGHTS &&
                 header->cmsg_len == CMSG_LEN(placed.size() * sizeof(int)),
             "the test sent other fds than it said");
  std::vector<int> fds(placed.size());
  memcpy(fds.data(), CMSG_DATA(header), fds.size() * sizeof(int));
  for (kj::uint i = 0; i < placed.size(); i++) {
    setup.place(placed[i].getName(), placed[i].getIndex(), fds[i]);
    close(fds[i]);
  }
}

int textMarker() {
  return 0;
}

// Where the parts of the address space lie. The calls this needs belong to `start`.
Greeting look() {
  int onStack = 0;
  void* heap = malloc(16);
  void* mapping =
      mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KJ_REQUIRE(mapping != MAP_FAILED);
  Greeting greeting = {uint64_t(&textMarker), uint64_t(heap), uint64_t(&onStack),
                       uint64_t(mapping)};
  munmap(mapping, 1 << 20);
  free(heap);
  return greeting;
}

// The test looks at this process before it says go.
void awaitGo(const Greeting& greeting) {
  send(&greeting, sizeof(greeting));
  char byte;
  bool go;
  if (reportFd == TEST_FD) {
    go = perform({SYS_read, {TEST_FD, uint64_t(&byte), 1}}) == 1;
  } else {
    pollfd waiting = {TEST_FD, POLLIN, 0};
    go = perform({SYS_ppoll, {uint64_t(&waiting), 1, 0, 0, sizeof(uint64_t)}}) == 1 &&
         waiting.revents == POLLIN;
  }
  if (!go) perform({SYS_exit_group, {0}});
}

// Mode `actor`.

std::vector<RawCall> callsOf(ProbeConfig::Reader config) {
  std::vector<RawCall> calls;
  for (auto call : config.getCalls())
    calls.push_back(rawCall(call));
  return calls;
}

// What the thread that makes the calls shares with the main thread, which reports for it: its
// filter may leave it no way to.
struct Thread {
  const ActorSetup& setup;
  kj::StringPtr stage;
  const std::vector<RawCall>& calls;
  bool entered = false;
  bool go = false;
  uint32_t done = 0;
  int64_t value = 0;
  uint32_t reported = 0;
};

template <typename T>
bool is(const T& word, T wanted) {
  return __atomic_load_n(&word, __ATOMIC_ACQUIRE) == wanted;
}

template <typename T>
void await(const T& word, T wanted) {
  while (!is(word, wanted))
    __builtin_ia32_pause();
}

void* runThread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  thread.setup.enter(thread.stage);
  __atomic_store_n(&thread.entered, true, __ATOMIC_RELEASE);
  await(thread.go, true);
  for (uint32_t i = 0; i < thread.calls.size(); i++) {
    thread.value = perform(thread.calls[i]);
    __atomic_store_n(&thread.done, i + 1, __ATOMIC_RELEASE);
    await(thread.reported, i + 1);
  }
  for (;;)
    __builtin_ia32_pause();
}

void tryInThread(const ActorSetup& setup, kj::StringPtr stage, const std::vector<RawCall>& calls,
                 const Greeting& greeting) {
  Thread thread = {setup, stage, calls};
  pthread_t handle;
  int error = pthread_create(&handle, nullptr, runThread, &thread);
  KJ_REQUIRE(error == 0, "no thread", strerror(error));
  await(thread.entered, true);
  setup.enter("ready");
  setup.enter("run");
  awaitGo(greeting);
  __atomic_store_n(&thread.go, true, __ATOMIC_RELEASE);
  for (uint32_t i = 0; i < calls.size(); i++) {
    while (!is(thread.done, i + 1)) {
      // The call was its end, but not the process's. This asks the kernel nothing.
      if (pthread_tryjoin_np(handle, nullptr) == 0) perform({SYS_exit_group, {ONLY_THE_THREAD}});
      __builtin_ia32_pause();
    }
    Report report = {i, Outcome::RETURNED, thread.value};
    send(&report, sizeof(report));
    __atomic_store_n(&thread.reported, i + 1, __ATOMIC_RELEASE);
  }
}

// Ends the process, as what comes behind a filter may call anything.
[[noreturn]] void end() {
  for (;;)
    perform({SYS_exit_group, {0}});
}

[[noreturn]] void tryMyself(const std::vector<RawCall>& calls, const Greeting& greeting) {
  awaitGo(greeting);
  for (uint32_t i = 0; i < calls.size(); i++) {
    Report report = {i, Outcome::RETURNED, perform(calls[i])};
    send(&report, sizeof(report));
  }
  end();
}

[[noreturn]] void actAsActor(const ActorSetup& setup, ProbeConfig::Reader config,
                             const Greeting& greeting) {
  auto calls = callsOf(config);
  kj::StringPtr stage = config.getStage();
  if (stage != "start") {
    for (int fd : config.getClosed())
      close(fd);
  }
  if (stage.startsWith("thread:")) {
    tryInThread(setup, stage, calls, greeting);
    end();
  }
  if (stage == "ready" || stage == "run") setup.enter("ready");
  if (stage == "run") setup.enter("run");
  tryMyself(calls, greeting);
}

// Mode `nursery`.

// What a child and its parent share.
struct Notice {
  enum State : uint32_t { BEGUN, TRYING, RETURNED };
  State state;
  int64_t value;
};

class Nursery {
 public:
  explicit Nursery(ProbeConfig::Reader config)
      : config(config),
        notice(static_cast<volatile Notice*>(mmap(nullptr, sizeof(Notice), PROT_READ | PROT_WRITE,
                                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    KJ_REQUIRE(notice != MAP_FAILED);
    // Children get a socket of their own as fd 3: what they do to it outlives them.
    KJ_SYSCALL(ownFd = fcntl(TEST_FD, F_DUPFD_CLOEXEC, 0));
    int sockets[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets));
    KJ_SYSCALL(dup3(sockets[0], TEST_FD, O_CLOEXEC));
    KJ_SYSCALL(close(sockets[0]));
    sigemptyset(&childEnded);
    sigaddset(&childEnded, SIGCHLD);
    KJ_SYSCALL(sigprocmask(SIG_BLOCK, &childEnded, nullptr));
    for (auto program : config.getFilters()) {
      filters.push_back({static_cast<unsigned short>(program.size() / sizeof(sock_filter)),
                         reinterpret_cast<sock_filter*>(const_cast<kj::byte*>(program.begin()))});
    }
    auto outside = config.getOutside();
    targets = {outside.getParent(), outside.getSibling(), outside.getProgramFd(),
               outside.getTcpPort(), outside.getAbstractName().cStr()};
  }

  void tryAll() {
    for (auto call : config.getCalls()) {
      RawCall raw = rawCall(call);
      if (call.getDeadly()) {
        reportDeadly(raw);
      } else {
        report([&]() { return perform(raw); });
      }
    }
    auto scenarios = makeScenarios();
    for (uint32_t which : config.getScenarios()) {
      report([&]() { return scenarios[which].attempt(targets); });
    }
  }

 private:
  template <typename Attempt>
  void report(Attempt attempt) {
    notice->state = Notice::BEGUN;
    notice->value = 0;
    pid_t pid = fork();
    KJ_REQUIRE(pid >= 0, "no child", strerror(errno));
    if (pid == 0) beChild(attempt);
    sendReport(pid);
  }

  // The child has a stack of its own and calls nothing of libc.
  void reportDeadly(const RawCall& call) {
    notice->state = Notice::BEGUN;
    notice->value = 0;
    struct Child {
      Nursery& nursery;
      const RawCall& call;
      [[noreturn]] static int begin(void* self) {
        Child& child = *static_cast<Child*>(self);
        auto attempt = [&]() { return perform(child.call); };
        child.nursery.beChild(attempt);
      }
    } child = {*this, call};
    pid_t pid = clone(&Child::begin, stack + sizeof(stack), CLONE_VM | SIGCHLD, &child);
    KJ_REQUIRE(pid >= 0, "no child", strerror(errno));
    sendReport(pid);
  }

  void sendReport(pid_t pid) {
    Report report = conclude(await(pid));
    report.index = index++;
    send(&report, sizeof(report), ownFd);
  }

  template <typename Attempt>
  [[noreturn]] void beChild(Attempt& attempt) {
    perform({SYS_close, {uint64_t(ownFd)}});
    for (const sock_fprog& filter : filters) {
      // The value tells which one the kernel did not take.
      long result = perform({SYS_seccomp, {SECCOMP_SET_MODE_FILTER, 0, uint64_t(&filter)}});
      notice->value = result;
      if (result < 0) perform({SYS_exit_group, {1}});
    }
    notice->state = Notice::TRYING;
    int64_t value = attempt();
    notice->value = value;
    notice->state = Notice::RETURNED;
    for (;;)
      perform({SYS_exit_group, {0}});
  }

  // The wait status; none if it had to be killed.
  kj::Maybe<int> await(pid_t pid) {
    int status;
    for (;;) {
      pid_t ended = waitpid(pid, &status, WNOHANG | __WALL);
      if (ended == pid) break;
      if (sigtimedwait(&childEnded, nullptr, &PATIENCE) >= 0 || errno == EINTR) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, __WALL);
      return nullptr;
    }
    // Its own children, if it got any.
    while (waitpid(-1, nullptr, WNOHANG | __WALL) > 0) {
    }
    return status;
  }

  Report conclude(kj::Maybe<int> ended) const {
    if (notice->state == Notice::BEGUN) return {0, Outcome::UNREADY, notice->value};
    if (notice->state == Notice::RETURNED) return {0, Outcome::RETURNED, notice->value};
    KJ_IF_MAYBE (status, ended) {
      if (WIFSIGNALED(*status) && WTERMSIG(*status) == SIGSYS) return {0, Outcome::KILLED, 0};
      return {0, Outcome::DIED,
              WIFSIGNALED(*status) ? WTERMSIG(*status) : ~int64_t(WEXITSTATUS(*status))};
    }
    return {0, Outcome::HUNG, 0};
  }

  ProbeConfig::Reader config;
  volatile Notice* notice;
  int ownFd;
  sigset_t childEnded;
  std::vector<sock_fprog> filters;
  Targets targets;
  uint32_t index = 0;
  alignas(16) char stack[64 << 10];
};

void play() {
  ActorSetup setup;
  // What an actor with an event loop has; it takes the numbers that its profile gives it.
  kj::Maybe<kj::AsyncIoContext> io;
  auto config = setup.config<ProbeConfig>();
  if (config.getHasEventLoop()) io = kj::setupAsyncIo();
  if (config.getIsMute()) reportFd = LOG_FD;
  setup.expectFds(config.getPlaced().size());
  receiveFds(setup, config);
  Greeting greeting = look();
  if (config.getMode() == ProbeConfig::Mode::ACTOR) actAsActor(setup, config, greeting);
  awaitGo(greeting);
  Nursery(config).tryAll();
}

// In a helper's place: it has no setup and one stage, and the test's message comes on fd 3.
void playHelper() {
  capnp::StreamFdMessageReader message(TEST_FD);
  auto config = message.getRoot<ProbeConfig>();
  Greeting greeting = look();
  if (config.getMode() == ProbeConfig::Mode::ACTOR) tryMyself(callsOf(config), greeting);
  awaitGo(greeting);
  Nursery(config).tryAll();
}

}  // namespace
}  // namespace troupe::sandbox::probe

int main(int argc, char**) {
  namespace probe = troupe::sandbox::probe;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(argc > 1 ? probe::playHelper : probe::play)) {
    auto text = kj::str(*exception, "\n");
    ssize_t written = write(troupe::sandbox::LOG_FD, text.begin(), text.size());
    return written < 0 ? 2 : 1;
  }
  return 0;
}
