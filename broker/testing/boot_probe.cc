// Plays `troupe` for one broker: starts troupe-broker in its jail, boots a kernel without any
// device and copies the serial port to stdout. For tests, and to look at a guest's first steps.
//
// usage: boot_probe BROKER KERNEL [--jail off] [--cpus N] [--memory MIB] [--initrd FILE]
//                   [--cmdline TEXT] [--mask NAME] [--press-button-at TEXT] [--rounds N]
//
// Ends with a line "END REASON DETAIL" and status 0 when the VM ended by itself.
#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/main.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <string>

#include "broker/broker_profile.h"
#include "protos/broker.capnp.h"
#include "protos/fd_handle.h"
#include "sandbox/attest.h"
#include "sandbox/launcher.h"
#include "sandbox/shared_memory.h"

namespace troupe::broker {
namespace {

Handle::Client handleTo(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  KJ_REQUIRE(fd.get() >= 0, "cannot open", path);
  return kj::heap<FdHandle>(kj::mv(fd));
}

struct Pair {
  Pair() {
    int ends[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    ours = kj::AutoCloseFd(ends[0]);
    theirs = kj::AutoCloseFd(ends[1]);
  }
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};

kj::StringPtr nameOf(EndReason reason) {
  switch (reason) {
    case EndReason::POWERED_OFF:
      return "poweredOff";
    case EndReason::RESET:
      return "reset";
    case EndReason::CRASHED:
      return "crashed";
    case EndReason::DEVICE_LOST:
      return "deviceLost";
    case EndReason::FAILED:
      return "failed";
    case EndReason::PANICKED:
      return "panicked";
    case EndReason::HOST_MEMORY_LOST:
      return "hostMemoryLost";
  }
  return "unknown";
}

double milliseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

class BootProbe {
 public:
  explicit BootProbe(kj::ProcessContext& context) : context(context) {}

  kj::MainFunc getMain() {
    using kj::StringPtr;
    return kj::MainBuilder(context, "boot_probe", "Boots a kernel in a jailed broker.")
        .addOptionWithArg(
            {"jail"}, [this](StringPtr v) { return set(jail, v); }, "on|off", "")
        .addOptionWithArg(
            {"cpus"}, [this](StringPtr v) { return set(cpus, v); }, "N", "")
        .addOptionWithArg(
            {"memory"}, [this](StringPtr v) { return set(memory, v); }, "MIB", "")
        .addOptionWithArg(
            {"initrd"}, [this](StringPtr v) { return set(initrd, v); }, "FILE", "")
        .addOptionWithArg(
            {"cmdline"}, [this](StringPtr v) { return set(cmdline, v); }, "S", "")
        .addOptionWithArg(
            {"mask"}, [this](StringPtr v) { return set(mask, v); }, "NAME", "")
        .addOptionWithArg(
            {"rounds"}, [this](StringPtr v) { return set(rounds, v); }, "N", "")
        .addOptionWithArg(
            {"press-button-at"}, [this](StringPtr v) { return set(buttonAt, v); }, "TEXT", "")
        .expectArg("BROKER", [this](StringPtr v) { return set(broker, v); })
        .expectArg("KERNEL", [this](StringPtr v) { return set(kernel, v); })
        .callAfterParsing([this]() { return runAll(); })
        .build();
  }

 private:
  kj::MainBuilder::Validity set(kj::String& option, kj::StringPtr value) {
    option = kj::str(value);
    return true;
  }

  kj::MainBuilder::Validity runAll() {
    auto io = kj::setupAsyncIo();
    for (int round = std::stoi(rounds.cStr()); round > 0; --round) {
      KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { run(io); })) {
        fprintf(stderr, "%s\n", exception->getDescription().cStr());
        return kj::str("the VM did not start or did not end by itself");
      }
    }
    return true;
  }

  void run(kj::AsyncIoContext& io) {
    double begin = milliseconds();
    Pair rpcPair, serialPair;
    kj::AutoCloseFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    kj::AutoCloseFd program(open(broker.cStr(), O_RDONLY | O_CLOEXEC));
    firstByte = 0;
    sandbox::Launcher launcher(io.unixEventPort,
                               jail == "off" ? sandbox::Jail::OFF : sandbox::Jail::ON);
    int log[2];
    KJ_SYSCALL(pipe2(log, O_CLOEXEC | O_NONBLOCK));
    kj::AutoCloseFd logRead(log[0]), logWrite(log[1]);
    KJ_DEFER(printLog(logRead));
    auto ram = sandbox::makeSharedMemory("guest-ram", memoryBytes());
    sandbox::HandedFd fds[] = {{"log", 0, logWrite},
                               {"rpc", 0, rpcPair.theirs},
                               {"kvm", 0, kvm},
                               {"ram", 0, ram.writable},
                               {"ram_readonly", 0, ram.readOnly},
                               {"serial", 0, serialPair.theirs}};
    auto child = launcher.launch(BROKER_PROFILE, program, "troupe-broker", "broker", fds, nullptr);
    rpcPair.theirs = nullptr;
    serialPair.theirs = nullptr;
    auto exited = child->onExit();

    {
      auto pipe = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(rpcPair.ours));
      capnp::TwoPartyClient client(*pipe, 8);
      auto vm = client.bootstrap().castAs<Broker>();
      auto end = start(vm);
      end.detach([](kj::Exception&&) {});
      auto ready = vm.prepareRequest().send();
      ready.wait(io.waitScope);
      double prepared = milliseconds();
      if (jail != "off") {
        // Before the guest can do anything.
        sandbox::requireAttested("broker", sandbox::attest(BROKER_PROFILE, child->pid()));
      }
      vm.runRequest().send().wait(io.waitScope);
      copySerial(io, vm, serialPair.ours, begin);
      auto response = vm.waitForEndRequest().send().wait(io.waitScope);
      auto counters = vm.countersRequest().send().wait(io.waitScope).getCounters();
      fprintf(stderr, "prepared %.2f ms, first byte %.2f ms, exits %lu\n", prepared - begin,
              firstByte - begin, (unsigned long)counters.getExits());
      printf("END %s %s\n", nameOf(response.getEnd().getReason()).cStr(),
             response.getEnd().getDetail().cStr());
      fflush(stdout);
    }
    int status = exited.wait(io.waitScope);
    KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the broker ended badly", status);
  }

  uint64_t memoryBytes() const { return std::stoull(memory.cStr()) << 20; }

  static void printLog(int fd) {
    char text[4096];
    ssize_t got;
    while ((got = read(fd, text, sizeof(text))) > 0)
      fwrite(text, 1, got, stderr);
  }

  kj::Promise<void> start(Broker::Client vm) {
    auto create = vm.createRequest();
    auto config = create.initConfig();
    config.setCpus(std::stoul(cpus.cStr()));
    config.setMemoryBytes(memoryBytes());
    config.setHasSerial(true);
    if (mask.size() > 0) config.initCpuMask(1).set(0, mask);
    auto created = create.send().ignoreResult();

    auto load = vm.loadRequest();
    auto files = load.initFiles();
    files.setKernel(handleTo(kernel));
    if (initrd.size() > 0) files.setInitrd(handleTo(initrd));
    files.setCommandLine(cmdline);
    auto loaded = load.send().then([](auto&& response) {
      fprintf(stderr, "protocol %s, entry 0x%lx\n", response.getProtocol().cStr(),
              (unsigned long)response.getEntry());
    });
    return created.then([loaded = kj::mv(loaded)]() mutable { return kj::mv(loaded); })
        .eagerlyEvaluate(
            [](kj::Exception&& e) { fprintf(stderr, "%s\n", e.getDescription().cStr()); });
  }

  // Until the broker closes its end or the VM has ended and nothing is left.
  void copySerial(kj::AsyncIoContext& io, Broker::Client vm, int serial, double begin) {
    firstByte = begin;
    auto stream = io.lowLevelProvider->wrapSocketFd(serial);
    bool ended = false;
    auto watch = vm.waitForEndRequest()
                     .send()
                     .then([&ended](auto&&) { ended = true; })
                     .eagerlyEvaluate([&ended](kj::Exception&&) { ended = true; });
    std::string seen;
    bool pressed = false;
    for (;;) {
      char buffer[4096];
      ssize_t got = recv(serial, buffer, sizeof(buffer), MSG_DONTWAIT);
      if (got > 0) {
        if (seen.empty()) firstByte = milliseconds();
        fwrite(buffer, 1, got, stdout);
        fflush(stdout);
        seen.append(buffer, got);
        if (!pressed && buttonAt.size() > 0 && seen.find(buttonAt.cStr()) != std::string::npos) {
          pressed = true;
          vm.powerButtonRequest().send().wait(io.waitScope);
        }
      } else if (got == 0 || ended) {
        return;
      } else {
        io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
      }
    }
  }

  kj::ProcessContext& context;
  kj::String broker, kernel, initrd, cmdline, mask, buttonAt;
  kj::String jail = kj::str("on");
  kj::String cpus = kj::str("1");
  kj::String memory = kj::str("128");
  kj::String rounds = kj::str("1");
  double firstByte = 0;
};

}  // namespace
}  // namespace troupe::broker

KJ_MAIN(troupe::broker::BootProbe)
