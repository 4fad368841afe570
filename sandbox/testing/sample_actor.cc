// An actor that has the common parts of every actor and nothing else: its setup, the event loop,
// RPC, and its filters. Tests run it in its jail.

#include <capnp/rpc-twoparty.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/main.h>
#include <kj/mutex.h>
#include <kj/thread.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "sandbox/actor_setup.h"
#include "sandbox/testing/sample.capnp.h"

namespace troupe::sandbox::testing {
namespace {

// By the calling convention of 32-bit programs.
long i386Getpid() {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L), "b"(7L) : "memory");
  return result;
}

// How long 20000 writes to the eventfd "events" take, in ns.
long eventWrites() {
  constexpr int FIRST_EVENT = 18;
  timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  uint64_t one = 1;
  for (int i = 0; i < 20000; i++) {
    if (write(FIRST_EVENT, &one, sizeof(one)) < 0) return -errno;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
}

// What the launcher executed it from: the first number that its limit forbids.
int programsNumber() {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  return int(limit.rlim_cur);
}

// Uses up what limits count, until the kernel refuses more or ends the process.

long useMemory() {
  constexpr size_t BLOCK = 1 << 20;
  for (long blocks = 0;; blocks++) {
    void* block = malloc(BLOCK);
    if (block == nullptr) return blocks;
    memset(block, 1, BLOCK);
  }
}

pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

void* waitAtGate(void*) {
  pthread_mutex_lock(&gate);
  return nullptr;
}

long useThreads() {
  pthread_mutex_lock(&gate);
  for (long threads = 0; threads < 1000; threads++) {
    pthread_t thread;
    int error = pthread_create(&thread, nullptr, waitAtGate, nullptr);
    if (error != 0) return error == EAGAIN ? threads : -error;
  }
  return 1000;
}

long useFds() {
  for (long fds = 0;; fds++) {
    if (eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) < 0) return errno == EMFILE ? fds : -errno;
  }
}

long call(kj::StringPtr name) {
  auto answer = [](long result) { return result < 0 ? -long(errno) : result; };
  if (name == "open") return answer(open("/proc/self/status", O_RDONLY));
  if (name == "open-root") return answer(open("/", O_RDONLY | O_DIRECTORY));
  if (name == "socket") return answer(socket(AF_INET, SOCK_STREAM, 0));
  if (name == "fork") return answer(syscall(SYS_fork));
  if (name == "clone3") return answer(syscall(SYS_clone3, nullptr, 0));
  if (name == "ptrace") return answer(syscall(SYS_ptrace, 0, 0, 0, 0));
  if (name == "unshare") return answer(unshare(CLONE_NEWUSER));
  if (name == "mount") return answer(mount("none", "/", "tmpfs", 0, ""));
  if (name == "getuid") return answer(getuid());
  if (name == "getpid") return answer(getpid());
  if (name == "getpid-i386") return i386Getpid();
  if (name == "sched_yield") return answer(sched_yield());
  if (name == "eventfd-writes") return eventWrites();
  if (name == "write-disk") return answer(pwrite(16, "x", 1, 0));
  if (name == "read-rpc") {
    char byte;
    return answer(pread(RPC_FD, &byte, 1, 0));
  }
  if (name == "executable-mapping") {
    void* mapping =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mapping == MAP_FAILED ? -errno : 0;
  }
  if (name == "dup-to-the-programs-number") {
    return answer(dup3(LOG_FD, programsNumber(), O_CLOEXEC));
  }
  if (name == "execute-the-programs-number") {
    const char* none[] = {nullptr};
    return answer(syscall(SYS_execveat, long(programsNumber()), "", none, none, AT_EMPTY_PATH));
  }
  if (name == "become-executable") {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return answer(mprotect(page, 4096, PROT_READ | PROT_EXEC));
  }
  if (name == "mdwe") return answer(prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0));
  if (name == "use-memory") return useMemory();
  if (name == "use-threads") return useThreads();
  if (name == "use-fds") return useFds();
  if (name == "use-cpu") {
    for (volatile bool on = true; on;) {
    }
  }
  if (name == "abort") std::abort();
  if (name == "throw") KJ_FAIL_REQUIRE("the test asked for it");
  if (name == "exit") _exit(7);
  KJ_FAIL_REQUIRE("no such call", name);
}

class SampleActor final: public Sample::Server {
 public:
  explicit SampleActor(ActorSetup& setup) : setup(setup) {}

  ~SampleActor() noexcept(false) {}

  kj::Promise<void> hello(HelloContext context) override {
    auto results = context.getResults();
    results.setName(setup.name());
    results.setGreeting(setup.config<SampleConfig>().getGreeting());
    return kj::READY_NOW;
  }

  kj::Promise<void> place(PlaceContext context) override {
    auto handle = context.getParams().getHandle();
    return handle.getFd().then([this, context, handle](kj::Maybe<int> fd) mutable {
      setup.place("events", context.getParams().getIndex(), KJ_REQUIRE_NONNULL(fd, "no fd"));
    });
  }

  kj::Promise<void> enter(EnterContext context) override {
    setup.enter(context.getParams().getStage());
    return kj::READY_NOW;
  }

  kj::Promise<void> read(ReadContext context) override {
    char buffer[64];
    ssize_t n;
    KJ_SYSCALL(n = pread(setup.fd("disk"), buffer, sizeof(buffer), 0));
    context.getResults().setText(kj::heapString(buffer, n));
    return kj::READY_NOW;
  }

  kj::Promise<void> try_(TryContext context) override {
    context.getResults().setResult(call(context.getParams().getCall()));
    return kj::READY_NOW;
  }

  kj::Promise<void> startThread(StartThreadContext context) override {
    int events = setup.fd("events");
    auto stage = kj::heapString(context.getParams().getStage());
    auto what = kj::heapString(context.getParams().getCall());
    auto confined = std::make_shared<kj::MutexGuarded<bool>>(false);
    auto called = std::make_shared<std::atomic<bool>>(false);
    auto thread = kj::heap<kj::Thread>(
        [this, events, confined, called, stage = kj::mv(stage), what = kj::mv(what)]() {
          {
            KJ_DEFER(*confined->lockExclusive() = true);
            if (stage.size() > 0) setup.enter(stage);
          }
          if (what.size() > 0) call(what);
          *called = true;
          uint64_t count;
          while (::read(events, &count, sizeof(count)) >= 0) {
          }
        });
    thread->detach();
    // However long that takes: the process's next filter would be that of a thread without its own,
    // and a thread that is not yet through its start dies of it.
    confined->when([](bool done) { return done; }, [](bool) {});
    // Without a system call, which a filter might refuse. A call that does not return is left
    // alone.
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
    while (!*called && std::chrono::steady_clock::now() < end) {
    }
    return kj::READY_NOW;
  }

 private:
  ActorSetup& setup;
};

void serve() {
  ActorSetup setup;
  auto io = kj::setupAsyncIo();
  setup.expectFds(16);
  auto stream =
      io.lowLevelProvider->wrapUnixSocketFd(RPC_FD, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  capnp::TwoPartyVatNetwork network(*stream, 64, capnp::rpc::twoparty::Side::SERVER);
  auto rpc = capnp::makeRpcServer(network, Sample::Client(kj::heap<SampleActor>(setup)));
  if (setup.config<SampleConfig>().getGreeting() == "enter run at once") setup.enter("run");
  network.onDisconnect().wait(io.waitScope);
}

}  // namespace
}  // namespace troupe::sandbox::testing

int main() {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(troupe::sandbox::testing::serve)) {
    auto text = kj::str(*exception, "\n");
    ssize_t written = write(troupe::sandbox::LOG_FD, text.begin(), text.size());
    return written < 0 ? 2 : 1;
  }
  return 0;
}
