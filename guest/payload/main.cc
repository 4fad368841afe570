#include "guest/payload/acpi.h"
#include "guest/payload/balloon_bench.h"
#include "guest/payload/bench.h"
#include "guest/payload/checks.h"
#include "guest/payload/clock.h"
#include "guest/payload/command_line.h"
#include "guest/payload/durability.h"
#include "guest/payload/interrupts.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/net_bench.h"
#include "guest/payload/report.h"

// The order of events: read what the loader left, look at the machine, then check or measure its
// devices, say how it went, end.
namespace payload {

namespace {

constexpr unsigned TYPE_NET = 1;  // virtio 1.2, §5
constexpr unsigned TYPE_BLK = 2;
constexpr unsigned TYPE_CONSOLE = 3;
constexpr unsigned TYPE_RNG = 4;
constexpr unsigned TYPE_BALLOON = 5;
constexpr unsigned TYPE_VSOCK = 19;

// Sleeps are looked after this often, so that a lost interrupt is a FAIL and not a hang.
constexpr uint32_t WATCH_PERIOD_NS = 100'000'000;
constexpr uint32_t KEY_PERIOD_NS = 2'000'000;
constexpr uint64_t TIMEOUT_SECONDS = 60;  // a host with little time replaces a device in several
constexpr uint64_t LIKELY_TSC_HZ = 2'000'000'000;  // where nobody tells

StartInfo startInfo;

void complain(const char* word, unsigned length) {
  ++counts.failed;
  print("FAIL  word \"", Bytes{word, length}, "\" has a value that is not understood\n");
}

bool mayScratch(const Options& options, unsigned disk) {
  return options.scratch == EVERY_DISK || options.scratch == disk;
}

bool checkMachine(const Acpi& acpi, const Options& options) {
  Subject machine{"machine", 0};
  check(startInfo.ramCount > 0, machine, "memory", startInfo.ramBytes() >> 20, " MiB of RAM");
  if (options.heapLast) {
    print("note  rings and buffers lie from ", Hex{heapStart()}, " on\n");
  }
  check(acpi.rsdpFound && acpi.checksumsGood, machine, "acpi", acpi.tableCount, " tables",
        acpi.hardwareReduced ? ", hardware-reduced" : "");
  check(acpi.hasS5 && (acpi.sleepControl || acpi.pm1aControl), machine, "power-off", "S5 type ",
        acpi.s5Type);
  if (!check(initLocalApic(acpi), machine, "local apic", Hex{acpi.localApic})) {
    return false;
  }
  if (options.intx && !check(routeLevelInterrupts(acpi), machine, "i/o apic", acpi.ioApicCount)) {
    return false;
  }
  return check(acpi.ecam != 0, machine, "ecam", Hex{acpi.ecam});
}

// Two ways to the same configuration space must agree; a machine may have one only.
void checkBus(const PciBus& bus) {
  Subject pci{"pci", 0};
  if (!check(bus.functionCount() > 0, pci, "functions", bus.functionCount())) {
    return;
  }
  uint32_t byMemory = bus.function(0).read<uint32_t>(0);
  uint32_t byPorts = bus.firstByPorts();
  if (byPorts != ~0u) {
    check(byPorts == byMemory, pci, "ports", Hex{byPorts}, " and ", Hex{byMemory}, " by memory");
  }
}

// The `wanted`-th device of a type on the bus.
bool findDevice(const PciBus& bus, unsigned type, unsigned wanted, PciFunction& found) {
  for (unsigned i = 0; i < bus.functionCount(); ++i) {
    if (VirtioDevice::typeOf(bus.function(i)) == type && wanted-- == 0) {
      found = bus.function(i);
      return true;
    }
  }
  return false;
}

void runBench(const DriverContext& context, const Options& options, TscRate rate) {
  PciFunction function;
  if (options.bench.kind == Bench::NET) {
    if (check(findDevice(context.bus, TYPE_NET, options.bench.net, function),
              Subject{"bench", options.bench.net}, "card", "of the bus")) {
      benchNet(context, function, options.bench, rate);
    }
    return;
  }
  if (options.bench.kind == Bench::BALLOON) {
    if (check(findDevice(context.bus, TYPE_BALLOON, 0, function), Subject{"bench", 0}, "balloon",
              "of the bus")) {
      benchBalloon(context, function, options.bench, rate);
    }
    return;
  }
  if (!findDevice(context.bus, TYPE_BLK, options.bench.disk, function)) {
    check(false, Subject{"bench", options.bench.disk}, "disk", "there is none of this number");
    return;
  }
  bool scratch = mayScratch(options, options.bench.disk);
  if (options.bench.kind == Bench::DURABILITY) {
    writeDurably(context, function, options.bench, scratch);
  } else {
    benchDisk(context, function, options.bench, scratch, rate);
  }
}

void checkDevices(const DriverContext& context, const Options& options) {
  unsigned disks = 0, consoles = 0, nets = 0, rngs = 0, balloons = 0, vsocks = 0, others = 0;
  for (unsigned i = 0; i < context.bus.functionCount(); ++i) {
    PciFunction function = context.bus.function(i);
    switch (VirtioDevice::typeOf(function)) {
      case 0:
        break;
      case TYPE_BLK:
        checkDisk(context, function, disks, mayScratch(options, disks));
        if (options.window) {
          checkNoDiskReaches(context, function, disks, options.window);
        }
        ++disks;
        break;
      case TYPE_CONSOLE:
        checkPorts(context, function, consoles);
        checkConsole(context, function, consoles, options.keys == Keys::CONSOLE && consoles == 0);
        ++consoles;
        break;
      case TYPE_NET:
        checkNet(context, function, nets++);
        break;
      case TYPE_RNG:
        checkRng(context, function, rngs++);
        break;
      case TYPE_BALLOON:
        checkBalloon(context, function, balloons++);
        break;
      case TYPE_VSOCK:
        checkVsock(context, function, vsocks++);
        break;
      default:
        print("note  virtio device of type ", VirtioDevice::typeOf(function), " in slot ",
              function.slot(), ": no check for it\n");
        ++others;
    }
  }
  if (disks + consoles + nets + rngs + balloons + vsocks + others == 0) {
    print("note  no virtio devices on bus 0\n");
  }
}

// Sends back what comes over the serial port, up to the first 'q'.
void echoKeys() {
  print("payload: keys are echoed until q\n");
  setTimer(KEY_PERIOD_NS);
  for (;;) {
    int key = readSerial();
    if (key == 'q') {
      setTimer(WATCH_PERIOD_NS);
      return print("\n");
    }
    if (key >= 0) {
      printChar(key);
    } else {
      waitForInterrupt();
    }
  }
}

// Devices stay as they are, their interrupts on; nothing but them wakes the processor.
[[noreturn]] void idle() {
  setTimer(0);
  for (;;) {
    waitForInterrupt();
  }
}

[[noreturn]] void end(const Acpi& acpi, End how) {
  if (how == End::VERDICT) {
    how = counts.failed == 0 ? End::POWEROFF : End::RESET;
  }
  switch (how) {
    case End::VERDICT:
    case End::POWEROFF:
      powerOff(acpi);
      print("payload: the machine did not turn off\n");
      break;
    case End::RESET:
      reset(acpi);
      print("payload: the machine did not reset\n");
      break;
    case End::CRASH:
      crash();
    case End::HALT:
      break;
    case End::SPIN:
      for (;;) {
        pause();
      }
  }
  haltForever();
}

void examine(const Acpi& acpi, const Options& options) {
  TscRate rate = tscRate(acpi);
  if (!checkMachine(acpi, options)) {
    return;
  }
  setTimer(WATCH_PERIOD_NS);
  PciBus bus(acpi);
  DriverContext context{
      bus, options.intx ? Delivery::INTX : Delivery::MSIX,
      (options.eventIndex ? FEATURE_EVENT_IDX : 0) | (options.indirect ? FEATURE_INDIRECT_DESC : 0),
      TIMEOUT_SECONDS * (rate.hz ? rate.hz : LIKELY_TSC_HZ)};
  if (options.bench.kind != Bench::NONE) {
    runBench(context, options, rate);
  } else {
    checkBus(bus);
    if (options.window) {
      checkWindow(startInfo, options.window);
    }
    checkDevices(context, options);
    print("note  ", bus.assignedHere(), " BARs were unassigned and have a place now\n");
  }
  if (options.keys == Keys::SERIAL) {
    echoKeys();
    if (options.window) {
      checkWindow(startInfo, options.window);
    }
  }
}

}  // namespace
}  // namespace payload

// `address`: of the PVH start info. The 'p' of the first line is out already (start.S).
extern "C" [[noreturn]] void payloadMain(uint64_t address) {
  using namespace payload;
  initGates();
  bool known = readStartInfo(address, startInfo);
  Options options = parseCommandLine(startInfo.commandLine, [](const char*, unsigned) {});
  auto heapPlace = options.heapLast ? HeapPlace::LAST : HeapPlace::BEHIND_IMAGE;
  known = known && initHeap(startInfo, heapPlace);
  Acpi acpi = readAcpi(startInfo);
  if (options.hello) {
    print("ayload: hello\n");
    end(acpi, options.end);
  }
  initSerial();
  print("ayload: ", static_cast<const char*>(startInfo.commandLine), "\n");
  parseCommandLine(startInfo.commandLine, complain);
  if (check(known, Subject{"machine", 0}, "start info", Hex{address})) {
    examine(acpi, options);
  }
  print("payload: ", counts.passed, " passed, ", counts.failed, " failed\n");
  if (options.idle) {
    idle();
  }
  end(acpi, options.end);
}
