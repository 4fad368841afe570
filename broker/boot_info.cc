#include "broker/boot_info.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

#include "broker/acpi_ports.h"
#include "broker/boot_layout.h"
#include "broker/boot_zircon.h"
#include "broker/refusal.h"
#include "tests/fuzz/planted.h"

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE = 4096;
constexpr uint8_t LOADER_UNDEFINED = 0xff;  // type_of_loader of a loader without a number

struct StartInfo {  // struct hvm_start_info, version 1
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t moduleCount;
  uint64_t modules;
  uint64_t commandLine;
  uint64_t rsdp;
  uint64_t memoryMap;
  uint32_t memoryMapEntries;
  uint32_t reserved;
};
static_assert(sizeof(StartInfo) == 56, "layout fixed by Xen");
constexpr uint32_t START_INFO_MAGIC = 0x336ec578;

struct Module {  // struct hvm_modlist_entry
  uint64_t address;
  uint64_t size;
  uint64_t commandLine;
  uint64_t reserved;
};
static_assert(sizeof(Module) == 32, "layout fixed by Xen");

struct PvhMemoryMapEntry {  // struct hvm_memmap_table_entry
  uint64_t address;
  uint64_t size;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(PvhMemoryMapEntry) == 24, "layout fixed by Xen");

struct SetupData {  // struct setup_data without its data
  uint64_t next;
  uint32_t type;
  uint32_t length;
};
static_assert(sizeof(SetupData) == 16, "layout fixed by the boot protocol");

struct DeviceTreeHeader {  // of which we look at the first words; big-endian
  uint32_t magic;
  uint32_t totalSize;
};
constexpr uint32_t DEVICE_TREE_MAGIC = 0xd00dfeed;
constexpr uint64_t DEVICE_TREE_LEAST = 40;  // its header

// Something that a file holds, in RAM. Nothing has size 0.
struct Placed {
  uint64_t address = 0;
  uint64_t size = 0;
};

void put(const GuestRam& ram, uint64_t address, const void* bytes, size_t size) {
  // Cannot fail: all we put lies in the first MiB, and the smallest RAM has two.
  memcpy(KJ_ASSERT_NONNULL(ram.slice(address, size)).begin(), bytes, size);
}

// Where `size` bytes go that are to lie as high as they may below `limit`: the first page of them.
uint64_t placeBelow(uint64_t limit, const KernelImage& kernel, uint64_t size, kj::StringPtr what) {
  uint64_t floor = (kernel.end + PAGE - 1) & ~(PAGE - 1);
  if (fuzz::isPlanted(fuzz::Bug::INITRD_ON_KERNEL)) floor = KERNEL_FLOOR;
  if (size > limit || ((limit - size) & ~(PAGE - 1)) < floor) {
    refuse("TRP-boot-009: the ", what, " of ", size,
           " bytes does not fit between the kernel's end at 0x", kj::hex(kernel.end), " and 0x",
           kj::hex(limit));
  }
  return (limit - size) & ~(PAGE - 1);
}

Placed loadInitrd(const GuestRam& ram, const KernelImage& kernel, const BootFile& file) {
  uint64_t limit = kj::min(ram.lowEnd(), kernel.initrdLast + 1);
  uint64_t address = placeBelow(limit, kernel, file.size(), file.what());
  file.read(0, KJ_ASSERT_NONNULL(ram.slice(address, file.size())));
  return Placed{address, file.size()};
}

// A setup_data of its own, below the initrd. What is in the tree is the kernel's to read.
Placed loadDeviceTree(const GuestRam& ram, const KernelImage& kernel, const Placed& initrd,
                      const BootFile& file) {
  auto bad = [&](auto&&... why) {
    refuse("TRP-boot-018: the ", file.what(), " is no device tree: ", why...);
  };
  if (kernel.protocol != BootProtocol::LINUX64) {
    refuse("TRP-boot-018: this kernel is handed no ", file.what(), "; Linux alone takes one");
  }
  if (file.size() < DEVICE_TREE_LEAST) bad("it has ", file.size(), " bytes");
  auto header = file.readAs<DeviceTreeHeader>(0);
  uint32_t magic = __builtin_bswap32(header.magic);
  uint64_t size = __builtin_bswap32(header.totalSize);
  if (magic != DEVICE_TREE_MAGIC) bad("it begins with 0x", kj::hex(magic));
  if (size < DEVICE_TREE_LEAST || size > file.size()) {
    bad("it says it has ", size, " bytes, and its file has ", file.size());
  }
  uint64_t limit = initrd.size > 0 ? initrd.address : kj::min(ram.lowEnd(), kernel.initrdLast + 1);
  uint64_t address = placeBelow(limit, kernel, sizeof(SetupData) + size, file.what());
  auto place = KJ_ASSERT_NONNULL(ram.slice(address, sizeof(SetupData) + size));
  SetupData data{0, SETUP_DTB, uint32_t(size)};
  memcpy(place.begin(), &data, sizeof(data));
  file.read(0, place.slice(sizeof(data), place.size()));
  return Placed{address, place.size()};
}

void putDescriptors(const GuestRam& ram, BootProtocol protocol) {
  // Flat segments. The registers are loaded without these; a kernel may reload from here.
  constexpr uint64_t CODE64 = 0x00af9b000000ffff;
  constexpr uint64_t CODE32 = 0x00cf9b000000ffff;
  constexpr uint64_t DATA = 0x00cf93000000ffff;
  constexpr uint64_t TASK = 0x00008b0000000067;
  uint64_t table[] = {0, 0, protocol == BootProtocol::PVH ? CODE32 : CODE64, DATA, TASK};
  static_assert(sizeof(table) == BOOT_GDT_LIMIT + 1, "one descriptor per selector");
  put(ram, BOOT_GDT_ADDRESS, table, sizeof(table));
}

// Resets the machine. Linux on a hardware-reduced platform asks for no reset through ACPI or the
// keyboard controller but calls EFI, and where there is none it jumps to where the BIOS begins.
void putResetVector(const GuestRam& ram) {
  constexpr uint16_t PORT = ACPI_PORT + ACPI_RESET;
  const uint8_t code[] = {0xba,      PORT & 0xff,
                          PORT >> 8,                    // mov dx, PORT
                          0xb0,      ACPI_RESET_VALUE,  // mov al, ACPI_RESET_VALUE
                          0xee,                         // out dx, al
                          0xf4,      0xeb,
                          0xfd};  // hlt, for ever
  put(ram, RESET_VECTOR_ADDRESS, code, sizeof(code));
}

// Maps the first 4 GiB to themselves in pages of 2 MiB: kernel, boot_params and command line are
// all there, as the protocol wants.
void putPageTables(const GuestRam& ram) {
  constexpr uint64_t PRESENT_WRITABLE = 3;
  constexpr uint64_t LARGE = 1 << 7;
  constexpr size_t ENTRIES = 512;
  constexpr size_t DIRECTORIES = 4;
  uint64_t table[ENTRIES] = {};
  uint64_t pointers = BOOT_PAGE_TABLES_ADDRESS + PAGE;
  uint64_t directories = pointers + PAGE;

  table[0] = pointers | PRESENT_WRITABLE;
  put(ram, BOOT_PAGE_TABLES_ADDRESS, table, sizeof(table));
  for (size_t i = 0; i < DIRECTORIES; ++i) {
    table[i] = (directories + i * PAGE) | PRESENT_WRITABLE;
  }
  put(ram, pointers, table, sizeof(table));
  for (size_t i = 0; i < DIRECTORIES; ++i) {
    for (size_t j = 0; j < ENTRIES; ++j) {
      table[j] = (i * ENTRIES + j) * 2 * MIB | PRESENT_WRITABLE | LARGE;
    }
    put(ram, directories + i * PAGE, table, sizeof(table));
  }
}

BootState putBootParams(const GuestRam& ram, const KernelImage& kernel, const Placed& initrd,
                        const Placed& deviceTree, kj::ArrayPtr<const MemoryMapEntry> map,
                        uint64_t rsdp) {
  boot_params params{};
  KJ_IF_MAYBE (header, kernel.linuxHeader) {
    params.hdr = *header;
  } else {
    // A vmlinux brings no header; these are what tells Linux that there is one at all.
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = 0x53726448;  // "HdrS"
    params.hdr.version = 0x20c;
    params.hdr.kernel_alignment = 2 * MIB;
  }
  params.hdr.type_of_loader = LOADER_UNDEFINED;
  params.hdr.loadflags |= LOADED_HIGH;
  params.hdr.cmd_line_ptr = uint32_t(COMMAND_LINE_ADDRESS);
  params.hdr.ramdisk_image = uint32_t(initrd.address);
  params.hdr.ramdisk_size = uint32_t(initrd.size);
  params.hdr.setup_data = deviceTree.address;
  params.acpi_rsdp_addr = rsdp;
  for (auto& entry : map) {
    params.e820_table[params.e820_entries++] =
        boot_e820_entry{entry.address, entry.size, entry.type};
  }
  put(ram, BOOT_PARAMS_ADDRESS, &params, sizeof(params));
  return BootState{BootProtocol::LINUX64, kernel.entry, BOOT_PARAMS_ADDRESS};
}

BootState putStartInfo(const GuestRam& ram, const KernelImage& kernel, const Placed& initrd,
                       kj::ArrayPtr<const MemoryMapEntry> map, uint64_t rsdp) {
  StartInfo info{};
  info.magic = START_INFO_MAGIC;
  info.version = 1;
  info.commandLine = COMMAND_LINE_ADDRESS;
  info.rsdp = rsdp;
  if (initrd.size > 0) {
    Module module{initrd.address, initrd.size, 0, 0};
    put(ram, PVH_MODULE_ADDRESS, &module, sizeof(module));
    info.moduleCount = 1;
    info.modules = PVH_MODULE_ADDRESS;
  }
  info.memoryMap = PVH_MEMORY_MAP_ADDRESS;
  for (auto& entry : map) {
    PvhMemoryMapEntry copy{entry.address, entry.size, entry.type, 0};
    put(ram, PVH_MEMORY_MAP_ADDRESS + info.memoryMapEntries++ * sizeof(copy), &copy, sizeof(copy));
  }
  put(ram, PVH_START_INFO_ADDRESS, &info, sizeof(info));
  return BootState{BootProtocol::PVH, kernel.entry, PVH_START_INFO_ADDRESS};
}

}  // namespace

kj::Vector<MemoryMapEntry> memoryMap(const GuestRam& ram, kj::ArrayPtr<const RamRange> reserved) {
  using E = MemoryMapEntry;
  kj::Vector<MemoryMapEntry> map;
  map.add(E{0, LOW_MEMORY_END, E::RAM});
  map.add(E{ACPI_TABLES_ADDRESS, KERNEL_FLOOR - ACPI_TABLES_ADDRESS, E::RESERVED});
  map.add(E{KERNEL_FLOOR, ram.lowEnd() - KERNEL_FLOOR, E::RAM});
  map.add(E{ECAM_START, ECAM_SIZE, E::RESERVED});
  // KVM's own pages on Intel, up to where RAM goes on.
  map.add(E{KVM_IDENTITY_MAP_ADDRESS, HIGH_RAM_START - KVM_IDENTITY_MAP_ADDRESS, E::RESERVED});
  for (auto& region : ram.regions().slice(1, ram.regions().size())) {
    map.add(E{region.guestAddress, region.size, E::RAM});
  }
  for (auto& range : reserved) {
    map.add(E{range.guestAddress, range.size, E::RESERVED});
  }
  std::sort(map.begin(), map.end(), [](const E& a, const E& b) { return a.address < b.address; });
  return map;
}

void checkCommandLine(const KernelImage& kernel, kj::StringPtr text) {
  uint64_t most = kj::min(uint64_t(kernel.commandLineMost), COMMAND_LINE_ROOM - 1);
  if (text.size() > most) {
    refuse("TRP-boot-010: the command line has ", text.size(), " bytes; this kernel takes ", most);
  }
  if (memchr(text.begin(), 0, text.size()) != nullptr) {
    refuse("TRP-boot-011: the command line has a zero byte in it");
  }
}

BootState writeBootInfo(const GuestRam& ram, const KernelImage& kernel, const BootFile& kernelFile,
                        const BootExtras& extras, kj::ArrayPtr<const RamRange> reserved,
                        uint64_t rsdp) {
  putDescriptors(ram, kernel.protocol);
  putResetVector(ram);
  if (kernel.protocol != BootProtocol::PVH) putPageTables(ram);
  Placed initrd, deviceTree;
  if (kernel.protocol != BootProtocol::ZIRCON) {
    checkCommandLine(kernel, extras.commandLine);
    put(ram, COMMAND_LINE_ADDRESS, extras.commandLine.cStr(), extras.commandLine.size() + 1);
    KJ_IF_MAYBE (file, extras.initrd) initrd = loadInitrd(ram, kernel, *file);
  }
  KJ_IF_MAYBE (file, extras.deviceTree) {
    deviceTree = loadDeviceTree(ram, kernel, initrd, *file);
  }
  auto map = memoryMap(ram, reserved);
  switch (kernel.protocol) {
    case BootProtocol::PVH:
      return putStartInfo(ram, kernel, initrd, map, rsdp);
    case BootProtocol::LINUX64:
      return putBootParams(ram, kernel, initrd, deviceTree, map, rsdp);
    case BootProtocol::ZIRCON:
      return writeZirconData(ram, kernel, kernelFile, extras, map, rsdp);
  }
  KJ_UNREACHABLE;
}

}  // namespace troupe::broker
