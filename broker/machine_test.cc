#include "broker/machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <functional>

#include "broker/boot_fakes.h"
#include "broker/loop_mailbox.h"
#include "broker/memory_map.h"
#include "sandbox/shared_memory.h"

namespace troupe::broker {
namespace {

using namespace testing;  // NOLINT: kernels in bytes

// A machine on the host's KVM with a socket at its serial port.
class Bench {
 public:
  explicit Bench(uint32_t vcpus = 1, uint64_t memory = 64 * MIB,
                 kj::Array<HostRegion> hostMemory = nullptr)
      : io(kj::setupAsyncIo()),
        mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))),
        serving(mailbox.serve().eagerlyEvaluate(
            [](kj::Exception&& e) { ADD_FAILURE() << kj::str(e).cStr(); })),
        kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC)),
        vm(kvm, fds),
        ram(sandbox::makeSharedMemory("guest-ram", memory)) {
    int ends[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    hostEnd = kj::AutoCloseFd(ends[0]);
    guestEnd = kj::AutoCloseFd(ends[1]);
    Vcpu::claimKickSignal();
    machine = kj::heap<Machine>(MachineSettings{vcpus, memory, nullptr, int(guestEnd), ram.writable,
                                                nullptr, kj::mv(hostMemory)},
                                MachineGround{vm, fds, mailbox, io.unixEventPort});
  }

  BootState load(const Bytes& kernel, const char* commandLine = "") {
    auto file = fileOf(kernel);
    return machine->load(BootFile(file, "kernel"), KernelKind::ANY,
                         BootExtras{nullptr, commandLine});
  }

  EndReason runToEnd() {
    machine->start([]() {});
    machine->run();
    auto timeout = io.provider->getTimer().afterDelay(20 * kj::SECONDS).then([]() {
      return static_cast<const MachineEnd*>(nullptr);
    });
    auto end = machine->end().whenReported().exclusiveJoin(kj::mv(timeout)).wait(io.waitScope);
    KJ_REQUIRE(end != nullptr, "the guest did not end");
    detail = kj::str(end->detail);
    return end->reason;
  }

  // As BrokerActor does, with no device on PCI.
  void reboot(const Bytes& kernel) {
    machine->powerOff().wait(io.waitScope);
    machine->powerOn().wait(io.waitScope);
    load(kernel);
    machine->runAgain();
  }

  // Until the guest has said `count` bytes on the serial port.
  std::string hear(size_t count) {
    std::string heard;
    for (int i = 0; i < 2000 && heard.size() < count; ++i) {
      io.provider->getTimer().afterDelay(5 * kj::MILLISECONDS).wait(io.waitScope);
      heard += serialOutput();
    }
    return heard;
  }

  const MachineEnd& nextEnd() {
    auto late = io.provider->getTimer().afterDelay(20 * kj::SECONDS).then([]() {
      return static_cast<const MachineEnd*>(nullptr);
    });
    auto end = machine->end().whenReported().exclusiveJoin(kj::mv(late)).wait(io.waitScope);
    KJ_REQUIRE(end != nullptr, "the guest did not end");
    return *end;
  }

  std::string serialOutput() {
    char text[4096];
    ssize_t got = recv(hostEnd, text, sizeof(text), MSG_DONTWAIT);
    return std::string(text, got > 0 ? got : 0);
  }

  kj::AsyncIoContext io;
  UnplacedFds fds;
  LoopMailbox mailbox;
  kj::Promise<void> serving;
  kj::AutoCloseFd kvm;
  KvmVm vm;
  sandbox::SharedMemory ram;
  kj::AutoCloseFd hostEnd;
  kj::AutoCloseFd guestEnd;
  kj::Own<Machine> machine;
  kj::String detail;
};

TEST(Machine, RunsAPvhKernelThatPrintsAndPowersOff) {
  Bench bench;
  auto boot = bench.load(pvhKernel(print("hello") + powerOff() + haltForever()));
  EXPECT_EQ(boot.protocol, BootProtocol::PVH);
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "hello");
  EXPECT_GE(bench.machine->exits(), 6u);
}

TEST(Machine, HandsAPvhKernelItsStartInfoInEbx) {
  Bench bench;
  Bytes printMagic = {0x66, 0xba, 0xf8, 0x03,   // mov dx, 0x3f8
                      0x8a, 0x03, 0xee,         // mov al, [ebx]; out dx, al
                      0x8a, 0x43, 0x03, 0xee};  // mov al, [ebx + 3]; out dx, al
  bench.load(pvhKernel(printMagic + powerOff() + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "\x78\x33");  // 0x336ec578
}

TEST(Machine, HandsALinuxKernelItsBootParametersInRsi) {
  Bench bench;
  Bytes printFlag = {0x66, 0xba, 0xf8, 0x03,                           // mov dx, 0x3f8
                     0x48, 0x8a, 0x86, 0xfe, 0x01, 0x00, 0x00, 0xee};  // mov al, [rsi + 0x1fe]
  auto boot = bench.load(bzImage(printFlag + powerOff() + haltForever()));
  EXPECT_EQ(boot.protocol, BootProtocol::LINUX64);
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "\x55");  // boot_flag
}

// A page of the host's at 0x8000000.
class HostPage {
 public:
  HostPage() : file(memfd_create("host", MFD_CLOEXEC)) { KJ_SYSCALL(ftruncate(file, 4096)); }

  kj::Array<HostRegion> region() {
    auto regions = kj::heapArray<HostRegion>(1);
    regions[0] = HostRegion{0x8000000, 4096, 0, file};
    return regions;
  }
  std::string read(size_t size) {
    std::string text(size, 0);
    KJ_SYSCALL(pread(file, &text[0], size, 0));
    return text;
  }

  kj::AutoCloseFd file;
};

const Bytes APPEND_X = {0xa1, 0x00, 0x00, 0x00, 0x08,         // mov eax, [0x8000000]
                        0xff, 0x05, 0x00, 0x00, 0x00, 0x08};  // inc dword [0x8000000]

TEST(Machine, AGuestSharesMemoryOfTheHostsAndARebootLeavesIt) {
  HostPage page;
  Bench bench(1, 64 * MIB, page.region());
  ASSERT_EQ(pwrite(page.file, "A", 1, 0), 1);
  auto kernel = pvhKernel(APPEND_X + powerOff() + haltForever());
  bench.load(kernel);
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(page.read(1), "B");
  bench.reboot(kernel);
  EXPECT_EQ(bench.nextEnd().reason, EndReason::POWERED_OFF);
  EXPECT_EQ(page.read(1), "C");
}

TEST(Machine, EndsWhenTheHostsMemoryIsGone) {
  HostPage page;
  Bench bench(1, 64 * MIB, page.region());
  bench.load(pvhKernel(APPEND_X + powerOff() + haltForever()));
  ASSERT_EQ(ftruncate(page.file, 0), 0);
  EXPECT_EQ(bench.runToEnd(), EndReason::HOST_MEMORY_LOST);
  EXPECT_TRUE(bench.detail.startsWith("vCPU 0")) << bench.detail.cStr();
}

TEST(Machine, EndsWithResetAtTheAcpiResetRegister) {
  Bench bench;
  bench.load(pvhKernel(outByte(0x602, 1) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
}

TEST(Machine, EndsWithResetAtTheKeyboardController) {
  Bench bench;
  bench.load(pvhKernel(outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
}

TEST(Machine, EndsAsCrashedAtATripleFault) {
  Bench bench;
  bench.load(pvhKernel({0x0f, 0x0b}));  // ud2, without any handler
  EXPECT_EQ(bench.runToEnd(), EndReason::CRASHED);
  EXPECT_TRUE(bench.detail.startsWith("triple fault on vCPU 0")) << bench.detail.cStr();
}

TEST(Machine, StartsASecondProcessorByInitAndSipi) {
  Bench bench(2);
  // Copies real-mode code to 0x8000 that prints and sets a flag, starts it and waits for the flag.
  Bytes code = {
      0xc7, 0x05, 0x00, 0x80, 0,    0,    0xba, 0xf8, 0x03, 0xb0,  // mov dx, 0x3f8; mov al,
      0xc7, 0x05, 0x04, 0x80, 0,    0,    0x41, 0xee, 0xc6, 0x06,  // 'A'; out dx, al; mov byte
      0xc7, 0x05, 0x08, 0x80, 0,    0,    0x00, 0x81, 0x01, 0xf4,  // [0x8100], 1; hlt
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00,  // INIT to all others
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00,  // SIPI, vector 8
      0x80, 0x3d, 0x00, 0x81, 0,    0,    0x00, 0x74, 0xf7,        // until [0x8100] is set
  };
  bench.load(pvhKernel(code + print("B") + powerOff() + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "AB");
}

TEST(Machine, EndsWithResetAtTheBiosEntryPoint) {
  Bench bench(2);
  Bytes code = {
      0xc7, 0x05, 0x00, 0x80, 0,    0,    0xea, 0xf0, 0xff, 0x00,  // 0x8000: ljmp 0xf000:0xfff0
      0xc6, 0x05, 0x04, 0x80, 0,    0,    0xf0,                    //
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00,  // INIT to all others
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00,  // SIPI, vector 8
  };
  bench.load(pvhKernel(code + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
}

TEST(Machine, EchoesSerialInputAndReadsAbsentPortsAsOnes) {
  Bench bench;
  KJ_SYSCALL(send(bench.hostEnd, "x", 1, 0));
  Bytes code = {
      0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb,  // until data is ready
      0x66, 0xba, 0xf8, 0x03, 0xec, 0xee,                    // in al, dx; out dx, al
      0x66, 0xba, 0x00, 0x50, 0xec,                          // in al, 0x5000
      0x66, 0xba, 0xf8, 0x03, 0xee,                          // out
  };
  bench.load(pvhKernel(code + powerOff() + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "x\xff");
}

// Prints '.' and counts in RAM at 0x300000, for ever.
const Bytes COUNTING = {0x66, 0xba, 0xf8, 0x03, 0xb0, 0x2e, 0xee,        // mov dx; mov al; out
                        0xb9, 0x00, 0x10, 0x00, 0x00,                    // mov ecx, 4096
                        0xff, 0x05, 0x00, 0x00, 0x30, 0x00, 0xe2, 0xf8,  // inc [0x300000]; loop
                        0xeb, 0xea};                                     // jmp to the start

TEST(Machine, APausedGuestStandsStillAndGoesOn) {
  Bench bench(2);
  bench.load(pvhKernel(COUNTING));
  bench.machine->start([]() {});
  bench.machine->run();
  EXPECT_GE(bench.hear(2).size(), 2u);

  bench.machine->pause().wait(bench.io.waitScope);
  EXPECT_TRUE(bench.machine->isPaused());
  uint64_t exits = bench.machine->exits();
  auto& count =
      *reinterpret_cast<volatile uint32_t*>(bench.machine->ram().hostPointer(0) + 0x300000);
  uint32_t counted = count;
  bench.serialOutput();
  bench.io.provider->getTimer().afterDelay(50 * kj::MILLISECONDS).wait(bench.io.waitScope);
  EXPECT_EQ(bench.machine->exits(), exits);
  EXPECT_EQ(count, counted);
  EXPECT_EQ(bench.serialOutput(), "");

  bench.machine->resume().wait(bench.io.waitScope);
  EXPECT_GE(bench.hear(2).size(), 2u);
  EXPECT_GT(count, counted);
}

TEST(Machine, PauseAndResumeInAnyOrderLoseNoVcpu) {
  Bench bench(2);
  bench.load(pvhKernel(COUNTING));
  bench.machine->start([]() {});
  bench.machine->run();
  for (int i = 0; i < 300; ++i) {
    auto paused = bench.machine->pause();
    if (i % 3 == 0) paused.wait(bench.io.waitScope);
    auto again = bench.machine->pause();
    bench.machine->resume().wait(bench.io.waitScope);
  }
  bench.serialOutput();
  EXPECT_GE(bench.hear(2).size(), 2u);
}

TEST(Machine, AGuestThatResetItselfStartsAnewInTheSameMachine) {
  Bench bench;
  // Leaves traces: in RAM, in the UART, and in the PIC's, the local APIC's and its own registers.
  Bytes first = {0xc6, 0x05, 0x00, 0x00, 0x30, 0x00, 0x01,  // mov byte [0x300000], 1
                 0xc7, 0x05, 0x80, 0x00, 0xe0, 0xfe, 0x50, 0x00, 0x00, 0x00};  // TPR = 0x50
  Bytes check = {0xa0, 0x00, 0x00, 0x30, 0x00,                                 // mov al, [0x300000]
                 0x02, 0x05, 0x80, 0x00, 0xe0, 0xfe,                           // add al, [TPR]
                 0x04, 0x30, 0x66, 0xba, 0xf8, 0x03, 0xee};                    // add al, '0'; out
  auto scratch = outByte(0x3ff, 7);
  bench.load(pvhKernel(first + scratch + print("a") + outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
  EXPECT_EQ(bench.nextEnd().boot, 0u);

  bench.reboot(pvhKernel(check + outByte(0x602, 1) + haltForever()));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::RESET);
  EXPECT_EQ(bench.nextEnd().boot, 1u);
  EXPECT_EQ(bench.serialOutput(), "a0");

  bench.reboot(pvhKernel({0x0f, 0x0b}));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::CRASHED);
  bench.reboot(bzImage(print("z") + powerOff() + haltForever()));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::POWERED_OFF);
  EXPECT_EQ(bench.nextEnd().boot, 3u);
  EXPECT_EQ(bench.serialOutput(), "z");
}

TEST(Machine, ARunningGuestIsResetFromOutsideAndAPausedOneStaysPaused) {
  Bench bench(2);
  bench.load(pvhKernel(COUNTING));
  bench.machine->start([]() {});
  bench.machine->run();
  EXPECT_GE(bench.hear(2).size(), 2u);
  bench.machine->pause().wait(bench.io.waitScope);
  bench.reboot(pvhKernel(print("b") + powerOff() + haltForever()));
  bench.serialOutput();
  bench.io.provider->getTimer().afterDelay(20 * kj::MILLISECONDS).wait(bench.io.waitScope);
  EXPECT_EQ(bench.serialOutput(), "");
  EXPECT_FALSE(bench.machine->end().reported());
  bench.machine->resume().wait(bench.io.waitScope);
  EXPECT_EQ(bench.nextEnd().reason, EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "b");
}

TEST(Machine, TheLoopHasOtherWorkWhileRamIsEmptied) {
  constexpr size_t PIECES = 8;
  Bench bench(1, PIECES * 128 * MIB);
  bench.load(pvhKernel(outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
  bench.machine->powerOff().wait(bench.io.waitScope);
  size_t looks = 0;
  std::function<kj::Promise<void>()> look = [&]() {
    ++looks;
    return bench.io.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).then([&]() {
      return look();
    });
  };
  auto looking = look().eagerlyEvaluate(nullptr);
  bench.machine->powerOn().wait(bench.io.waitScope);
  EXPECT_GE(looks, PIECES - 1);
}

TEST(Machine, ASecondProcessorWaitsForItsInitAfterAReset) {
  Bench bench(2);
  Bytes start = {
      0xc7, 0x05, 0x00, 0x80, 0,    0,    0xba, 0xf8, 0x03, 0xb0,  // mov dx, 0x3f8; mov al,
      0xc7, 0x05, 0x04, 0x80, 0,    0,    0x41, 0xee, 0xc6, 0x06,  // 'A'; out dx, al; mov byte
      0xc7, 0x05, 0x08, 0x80, 0,    0,    0x00, 0x81, 0x01, 0xf4,  // [0x8100], 1; hlt
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00,  // INIT to all others
      0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00,  // SIPI, vector 8
      0x80, 0x3d, 0x00, 0x81, 0,    0,    0x00, 0x74, 0xf7,        // until [0x8100] is set
  };
  auto kernel = pvhKernel(start + print("B") + outByte(0x64, 0xfe) + haltForever());
  bench.load(kernel);
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
  for (int i = 0; i < 5; ++i) {
    bench.reboot(kernel);
    EXPECT_EQ(bench.nextEnd().reason, EndReason::RESET);
  }
  EXPECT_EQ(bench.serialOutput(), "ABABABABABAB");
}

TEST(Machine, APanicEndsTheGuestWhetherItResetsItselfOrNot) {
  Bench bench;
  bench.load(pvhKernel(outByte(0x505, 1) + outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::PANICKED);
  bench.reboot(pvhKernel(outByte(0x505, 1) + print("last words") + haltForever()));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::PANICKED);
  EXPECT_EQ(bench.serialOutput(), "last words");
  bench.reboot(pvhKernel(outByte(0x505, 2) + outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::RESET);
}

TEST(Machine, AStringInstructionIsOverBeforeTheRegistersAreSet) {
  Bench bench;
  // rep outsb of 64 KiB to the serial port, again and again.
  Bytes talk = {0x66, 0xba, 0xf8, 0x03, 0xbe, 0x00, 0x00, 0x30, 0x00,
                0xb9, 0x00, 0x00, 0x01, 0x00, 0xf3, 0x6e, 0xeb, 0xee};
  bench.load(pvhKernel(talk));
  bench.machine->start([]() {});
  bench.machine->run();
  for (int i = 0; i < 20; ++i) {
    bench.hear(1);
    bench.reboot(pvhKernel(talk));
  }
  bench.reboot(pvhKernel(powerOff() + haltForever()));
  EXPECT_EQ(bench.nextEnd().reason, EndReason::POWERED_OFF);
}

TEST(Machine, ADeviceThatIsLostAfterTheGuestsEndIsNotForgotten) {
  Bench bench;
  bench.load(pvhKernel(outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
  bench.machine->end().report(MachineEnd{EndReason::DEVICE_LOST, kj::str("rng0"), 3});
  bench.machine->powerOff().wait(bench.io.waitScope);
  EXPECT_TRUE(bench.machine->end().reported());
  EXPECT_EQ(bench.nextEnd().reason, EndReason::DEVICE_LOST);
  EXPECT_EQ(bench.nextEnd().device, 3);
}

TEST(Machine, ALossThatIsOnItsWayWhileTheGuestsEndIsForgottenHoldsTheNextBoot) {
  Bench bench;
  bench.load(pvhKernel(outByte(0x64, 0xfe) + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::RESET);
  bench.machine->powerOff().wait(bench.io.waitScope);
  EXPECT_FALSE(bench.machine->end().reported());
  bench.machine->end().report(MachineEnd{EndReason::DEVICE_LOST, kj::str("rng0"), 3});
  bench.machine->end().forget();  // before the loop has taken the report
  EXPECT_EQ(bench.nextEnd().reason, EndReason::DEVICE_LOST);
  bench.machine->powerOn().wait(bench.io.waitScope);
  bench.load(pvhKernel(print("x") + powerOff() + haltForever()));
  bench.machine->runAgain();
  bench.io.provider->getTimer().afterDelay(50 * kj::MILLISECONDS).wait(bench.io.waitScope);
  EXPECT_EQ(bench.serialOutput(), "");
}

TEST(Machine, StopsVcpusThatSpin) {
  Bench bench(2);
  bench.load(pvhKernel({0xeb, 0xfe}));
  bench.machine->start([]() {});
  bench.machine->run();
  bench.machine = nullptr;  // would hang
}

TEST(Machine, EndsAsFailedWhenAVcpuCannotEnterItsJail) {
  Bench bench;
  bench.load(pvhKernel(haltForever()));
  bench.machine->start([]() { KJ_FAIL_REQUIRE("no jail"); });
  auto end = bench.machine->end().whenReported().wait(bench.io.waitScope);
  EXPECT_EQ(end->reason, EndReason::FAILED);
  EXPECT_EQ(bench.machine->exits(), 0u);
}

TEST(Machine, HoldsRamOnBothSidesOfTheHole) {
  Bench bench(1, LOW_RAM_END + 64 * MIB);
  Bytes code = {0xc6, 0x05, 0xff, 0xff, 0xff, 0xbf, 0x6c,  // mov byte [0xbfffffff], 'l'
                0xa0, 0xff, 0xff, 0xff, 0xbf,              // mov al, [0xbfffffff]
                0x66, 0xba, 0xf8, 0x03, 0xee};
  bench.load(pvhKernel(code + powerOff() + haltForever()));
  EXPECT_EQ(bench.runToEnd(), EndReason::POWERED_OFF);
  EXPECT_EQ(bench.serialOutput(), "l");
}

}  // namespace
}  // namespace troupe::broker
