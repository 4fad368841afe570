#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/exception.h>

#include <random>

#include "broker/boot_fakes.h"
#include "broker/boot_image.h"
#include "broker/boot_info.h"
#include "broker/boot_layout.h"
#include "sandbox/shared_memory.h"

namespace troupe::broker {
namespace {

using namespace testing;  // NOLINT: kernels in bytes

const Bytes CODE = {0xf4, 0xeb, 0xfd, 0x90};

struct Loaded {
  explicit Loaded(uint64_t memory = 64 * MIB)
      : file(sandbox::makeSharedMemory("guest-ram", memory)), ram(memory, file.writable) {}

  KernelImage load(const Bytes& content) {
    auto file = fileOf(content);
    return loadKernel(BootFile(file, "kernel"), ram);
  }
  Bytes at(uint64_t address, size_t size) {
    auto place = KJ_ASSERT_NONNULL(ram.slice(address, size));
    return Bytes(place.begin(), place.end());
  }
  template <typename T>
  T read(uint64_t address) {
    T value;
    memcpy(&value, KJ_ASSERT_NONNULL(ram.slice(address, sizeof(T))).begin(), sizeof(T));
    return value;
  }

  sandbox::SharedMemory file;
  GuestRam ram;
};

BootState writeInfo(const GuestRam& ram, const KernelImage& kernel,
                    kj::Maybe<const BootFile&> initrd, kj::StringPtr commandLine, uint64_t rsdp,
                    kj::Maybe<const BootFile&> deviceTree = nullptr) {
  auto file = fileOf(CODE);
  return writeBootInfo(ram, kernel, BootFile(file, "kernel"),
                       BootExtras{initrd, commandLine, deviceTree}, nullptr, rsdp);
}

// The code of the refusal that `action` ends with, "" if with none.
template <typename Action>
std::string codeOf(Action&& action) {
  try {
    action();
  } catch (const kj::Exception& e) {
    return std::string(e.getDescription().cStr()).substr(0, 12);
  }
  return "";
}

std::string refusalOf(const Bytes& kernel, uint64_t memory = 64 * MIB) {
  return codeOf([&]() { Loaded(memory).load(kernel); });
}

template <typename T>
Bytes patched(Bytes bytes, size_t offset, T value) {
  memcpy(&bytes.at(offset), &value, sizeof(value));
  return bytes;
}

TEST(BzImage, LiesWhereItWantsTo) {
  Loaded loaded;
  auto kernel = loaded.load(bzImage(CODE));
  EXPECT_EQ(kernel.protocol, BootProtocol::LINUX64);
  EXPECT_EQ(kernel.entry, 0x1000200u);
  EXPECT_EQ(kernel.end, 0x1010000u);
  EXPECT_EQ(loaded.at(kernel.entry, CODE.size()), CODE);
}

TEST(BzImage, MovesDownWhenMemoryIsSmall) {
  Loaded loaded(16 * MIB);
  EXPECT_EQ(loaded.load(bzImage(CODE)).entry, 0x200200u);
}

TEST(BzImage, IsRefusedWhenItCannotMove) {
  auto fixed = patched(bzImage(CODE), offsetof(boot_params, hdr.relocatable_kernel), uint8_t(0));
  EXPECT_EQ(refusalOf(fixed, 16 * MIB), "TRP-boot-007");
  EXPECT_EQ(refusalOf(fixed), "");
}

TEST(BzImage, IsRefusedWithout64BitEntry) {
  auto image = bzImage(CODE);
  EXPECT_EQ(refusalOf(patched(image, offsetof(boot_params, hdr.version), uint16_t(0x20b))),
            "TRP-boot-005");
  EXPECT_EQ(refusalOf(patched(image, offsetof(boot_params, hdr.xloadflags), uint16_t(0))),
            "TRP-boot-005");
}

TEST(BzImage, IsRefusedWhenCutShort) {
  auto image = bzImage(CODE);
  image.resize(image.size() - 17);
  EXPECT_EQ(refusalOf(image), "TRP-boot-003");
  image.resize(BZIMAGE_SETUP_SIZE);
  EXPECT_EQ(refusalOf(image), "TRP-boot-003");
  image.resize(0x230);
  EXPECT_EQ(refusalOf(image), "TRP-boot-003");
}

TEST(BzImage, IsRefusedWhenItNeedsMoreMemoryThanThereIs) {
  auto image = bzImage(CODE);
  EXPECT_EQ(refusalOf(patched(image, offsetof(boot_params, hdr.init_size), uint32_t(64 * MIB))),
            "TRP-boot-007");
  EXPECT_EQ(refusalOf(patched(image, offsetof(boot_params, hdr.init_size), ~uint32_t(0))),
            "TRP-boot-007");
}

TEST(Elf, WithAPvhNoteAloneStartsAtItsEntry) {
  Loaded loaded;
  auto kernel = loaded.load(pvhKernel(CODE));
  EXPECT_EQ(kernel.protocol, BootProtocol::PVH);
  EXPECT_EQ(kernel.entry, ELF_LOAD_ADDRESS);
  EXPECT_EQ(kernel.end, ELF_LOAD_ADDRESS + CODE.size() + 4096);
  EXPECT_EQ(loaded.at(ELF_LOAD_ADDRESS, CODE.size()), CODE);
}

TEST(Elf, ThatIsLinuxStartsAtIts64BitEntryThoughItHasAPvhNote) {
  Bytes guestOs = note("Xen", 6, Bytes({'l', 'i', 'n', 'u', 'x', 0}));
  EXPECT_EQ(Loaded().load(elfKernel(CODE, pvhNote() + guestOs)).protocol, BootProtocol::LINUX64);
  EXPECT_EQ(Loaded().load(elfKernel(CODE, note("Linux", 256, {0}) + pvhNote())).protocol,
            BootProtocol::LINUX64);
}

TEST(Elf, WithoutNotesIsTakenForAVmlinux) {
  EXPECT_EQ(Loaded().load(elfKernel(CODE, {})).protocol, BootProtocol::LINUX64);
}

TEST(Elf, IsRefusedWhenItIsAProgram) {
  auto kernel = elfKernel(CODE, {});
  EXPECT_EQ(refusalOf(patched(kernel, offsetof(Elf64_Ehdr, e_type), uint16_t(ET_DYN))),
            "TRP-boot-006");
  EXPECT_EQ(refusalOf(patched(kernel, offsetof(Elf64_Ehdr, e_machine), uint16_t(EM_AARCH64))),
            "TRP-boot-006");
  size_t second = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr);
  for (uint32_t type : {PT_INTERP, PT_TLS, PT_DYNAMIC}) {
    EXPECT_EQ(refusalOf(patched(kernel, second, type)), "TRP-boot-006");
  }
}

TEST(Elf, IsRefusedWhereItsSegmentsCannotLie) {
  auto kernel = pvhKernel(CODE);
  size_t load = sizeof(Elf64_Ehdr);
  auto withAddress = [&](uint64_t address) {
    return refusalOf(patched(kernel, load + offsetof(Elf64_Phdr, p_paddr), address));
  };
  EXPECT_EQ(withAddress(0), "TRP-boot-013");  // the entry is outside then
  EXPECT_EQ(withAddress(~0ull), "TRP-boot-013");
  auto withSize = [&](uint64_t size) {
    return refusalOf(patched(kernel, load + offsetof(Elf64_Phdr, p_memsz), size));
  };
  EXPECT_EQ(withSize(64 * MIB), "TRP-boot-007");
  EXPECT_EQ(withSize(~0ull), "TRP-boot-007");
  EXPECT_EQ(withSize(CODE.size() - 1), "TRP-boot-013");
  auto low = patched(kernel, load + offsetof(Elf64_Phdr, p_paddr), uint64_t(KERNEL_FLOOR - 1));
  low = patched(low, load + offsetof(Elf64_Phdr, p_memsz), uint64_t(4 * MIB));
  EXPECT_EQ(refusalOf(low), "TRP-boot-008");
}

// Sixty-four headers that name the whole of a large file would keep us copying for minutes.
TEST(Elf, IsRefusedWhenItsSegmentsShareTheFile) {
  auto kernel = pvhKernel(CODE);
  // The notes' header becomes a second one of the code's.
  Elf64_Phdr load;
  memcpy(&load, &kernel.at(sizeof(Elf64_Ehdr)), sizeof(load));
  load.p_offset = 0;
  load.p_filesz = kernel.size();
  load.p_memsz = kernel.size();
  EXPECT_EQ(refusalOf(patched(kernel, sizeof(Elf64_Ehdr) + sizeof(load), load)), "TRP-boot-013");
}

TEST(Elf, IsRefusedWhenCutShort) {
  auto kernel = pvhKernel(CODE);
  for (size_t size : {size_t(5), sizeof(Elf64_Ehdr) - 1, sizeof(Elf64_Ehdr) + 1}) {
    EXPECT_EQ(refusalOf(Bytes(kernel.begin(), kernel.begin() + size)), "TRP-boot-003") << size;
  }
  auto far = patched(kernel, sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_offset), ~uint64_t(0));
  EXPECT_EQ(refusalOf(far), "TRP-boot-003");
  far = patched(kernel, offsetof(Elf64_Ehdr, e_phoff), ~uint64_t(0) - 8);
  EXPECT_EQ(refusalOf(far), "TRP-boot-003");
}

TEST(Kernel, IsRefusedWhenItIsNone) {
  EXPECT_EQ(refusalOf({}), "TRP-boot-002");
  EXPECT_EQ(refusalOf({'x'}), "TRP-boot-004");
  EXPECT_EQ(refusalOf(Bytes(100000, 'x')), "TRP-boot-004");
  kj::AutoCloseFd directory(open("/", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(codeOf([&]() { BootFile(directory, "kernel"); }), "TRP-boot-001");
  kj::AutoCloseFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(codeOf([&]() { BootFile(null, "kernel"); }), "TRP-boot-001");
}

TEST(Kernel, IsRefusedWhenItsFileShrinks) {
  auto file = fileOf(bzImage(CODE));
  BootFile kernel(file, "kernel");
  KJ_SYSCALL(ftruncate(file, 0x300));
  Loaded loaded;
  EXPECT_EQ(codeOf([&]() { loadKernel(kernel, loaded.ram); }), "TRP-boot-003");
}

// Whatever stands in a header: it is loaded or refused with a code, and nothing below 1 MiB
// changes.
TEST(Kernel, SurvivesAnyHeader) {
  std::mt19937 random(20261120);
  const uint8_t EDGES[] = {0, 1, 0x7f, 0x80, 0xff};
  for (auto& good : {pvhKernel(CODE), bzImage(CODE)}) {
    size_t header = good.size() > 1000 ? 0x1f1 : 0;
    Loaded loaded(4 * MIB);
    for (int round = 0; round < 4000; ++round) {
      Bytes kernel = good;
      for (int changes = random() % 4 + 1; changes > 0; --changes) {
        uint8_t value = random() % 2 ? EDGES[random() % 5] : uint8_t(random());
        kernel.at(header + random() % std::min<size_t>(kernel.size() - header, 240)) = value;
      }
      if (random() % 8 == 0) kernel.resize(random() % kernel.size());
      auto code = codeOf([&]() { loaded.load(kernel); });
      ASSERT_TRUE(code == "" || code.rfind("TRP-boot-0", 0) == 0) << code;
    }
    EXPECT_EQ(loaded.at(0, MIB), Bytes(MIB));
  }
}

TEST(BootInfo, TellsLinuxOfMemoryCommandLineAndTables) {
  Loaded loaded;
  auto kernel = loaded.load(bzImage(CODE));
  auto state = writeInfo(loaded.ram, kernel, nullptr, "console=ttyS0", 0xe0000);
  EXPECT_EQ(state.info, BOOT_PARAMS_ADDRESS);
  auto params = loaded.read<boot_params>(BOOT_PARAMS_ADDRESS);
  EXPECT_EQ(params.acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(loaded.at(params.hdr.cmd_line_ptr, 14),
            Bytes({'c', 'o', 'n', 's', 'o', 'l', 'e', '=', 't', 't', 'y', 'S', '0', 0}));
  ASSERT_GE(params.e820_entries, 3);
  EXPECT_EQ(uint64_t(params.e820_table[2].addr), 1 * MIB);
  EXPECT_EQ(uint64_t(params.e820_table[2].size), 63 * MIB);
}

TEST(BootInfo, PutsTheInitrdAsHighAsKernelAndMemoryAllow) {
  Loaded loaded;
  auto file = fileOf(Bytes(5000, 'i'));
  BootFile initrd(file, "initrd");
  auto image =
      patched(bzImage(CODE), offsetof(boot_params, hdr.initrd_addr_max), uint32_t(48 * MIB - 1));
  writeInfo(loaded.ram, loaded.load(image), initrd, "", 0);
  auto params = loaded.read<boot_params>(BOOT_PARAMS_ADDRESS);
  EXPECT_EQ(params.hdr.ramdisk_image, 48 * MIB - 8192);
  EXPECT_EQ(params.hdr.ramdisk_size, 5000u);
  EXPECT_EQ(loaded.at(params.hdr.ramdisk_image, 5000), Bytes(5000, 'i'));

  writeInfo(loaded.ram, loaded.load(bzImage(CODE)), initrd, "", 0);
  params = loaded.read<boot_params>(BOOT_PARAMS_ADDRESS);
  EXPECT_EQ(params.hdr.ramdisk_image, 64 * MIB - 8192);
}

TEST(BootInfo, RefusesAnInitrdThatWouldMeetTheKernel) {
  Loaded loaded;
  auto kernel = loaded.load(bzImage(CODE));
  auto file = fileOf(Bytes(64 * MIB - kernel.end + 1, 'i'));
  EXPECT_EQ(codeOf([&]() {
              BootFile initrd(file, "initrd");
              writeInfo(loaded.ram, kernel, initrd, "", 0);
            }),
            "TRP-boot-009");
}

TEST(BootInfo, RefusesCommandLinesTheKernelCannotTake) {
  Loaded loaded;
  auto kernel = loaded.load(bzImage(CODE));
  auto longest = kj::str(kj::repeat('x', 2047));
  auto tooLong = kj::str(kj::repeat('x', 2048));
  EXPECT_EQ(codeOf([&]() { writeInfo(loaded.ram, kernel, nullptr, longest, 0); }), "");
  EXPECT_EQ(codeOf([&]() { writeInfo(loaded.ram, kernel, nullptr, tooLong, 0); }), "TRP-boot-010");
  kj::StringPtr withZero("a\0b", 3);
  EXPECT_EQ(codeOf([&]() { writeInfo(loaded.ram, kernel, nullptr, withZero, 0); }), "TRP-boot-011");
}

TEST(BootInfo, TellsAPvhKernelTheSame) {
  Loaded loaded;
  auto file = fileOf(Bytes(100, 'i'));
  BootFile initrd(file, "initrd");
  auto state = writeInfo(loaded.ram, loaded.load(pvhKernel(CODE)), initrd, "x", 0xe0000);
  EXPECT_EQ(state.info, PVH_START_INFO_ADDRESS);
  EXPECT_EQ(loaded.read<uint32_t>(state.info), 0x336ec578u);
  EXPECT_EQ(loaded.read<uint32_t>(state.info + 4), 1u);         // version
  EXPECT_EQ(loaded.read<uint32_t>(state.info + 12), 1u);        // modules
  EXPECT_EQ(loaded.read<uint64_t>(state.info + 32), 0xe0000u);  // RSDP
  EXPECT_EQ(loaded.read<uint32_t>(state.info + 48), memoryMap(loaded.ram).size());
  auto module = loaded.read<uint64_t>(state.info + 16);
  EXPECT_EQ(loaded.read<uint64_t>(module), 64 * MIB - 4096);
  EXPECT_EQ(loaded.read<uint64_t>(module + 8), 100u);
}

Bytes deviceTree(size_t size) {
  Bytes tree(size, 't');
  uint32_t words[] = {__builtin_bswap32(0xd00dfeed), __builtin_bswap32(uint32_t(size))};
  memcpy(tree.data(), words, sizeof(words));
  return tree;
}

TEST(DeviceTree, LiesBelowTheInitrdAsSetupDataOfType2) {
  Loaded loaded;
  auto content = deviceTree(5000);
  auto file = fileOf(content + Bytes(10, 'x'));  // what follows the tree is none of it
  auto initrdFile = fileOf(Bytes(100, 'i'));
  BootFile initrd(initrdFile, "initrd");
  BootFile tree(file, "device tree");
  auto state = writeInfo(loaded.ram, loaded.load(bzImage(CODE)), initrd, "", 0, tree);
  auto params = loaded.read<boot_params>(state.info);
  uint64_t address = params.hdr.setup_data;
  EXPECT_LT(address + 16 + content.size(), params.hdr.ramdisk_image + 1);
  EXPECT_EQ(loaded.read<uint64_t>(address), 0u);
  EXPECT_EQ(loaded.read<uint32_t>(address + 8), 2u);
  EXPECT_EQ(loaded.read<uint32_t>(address + 12), content.size());
  EXPECT_EQ(loaded.at(address + 16, content.size()), content);
}

TEST(DeviceTree, IsRefusedWhenItIsNoneOrNoKernelWouldGetIt) {
  auto refusal = [](const Bytes& kernel, const Bytes& content) {
    return codeOf([&]() {
      Loaded loaded;
      auto file = fileOf(content);
      BootFile tree(file, "device tree");
      writeInfo(loaded.ram, loaded.load(kernel), nullptr, "", 0, tree);
    });
  };
  auto linuxKernel = bzImage(CODE);
  EXPECT_EQ(refusal(linuxKernel, deviceTree(100)), "");
  EXPECT_EQ(refusal(linuxKernel, Bytes(100, 'x')), "TRP-boot-018");
  EXPECT_EQ(refusal(linuxKernel, Bytes(4, 'x')), "TRP-boot-018");
  auto longer = deviceTree(100);
  longer.resize(99);
  EXPECT_EQ(refusal(linuxKernel, longer), "TRP-boot-018");
  EXPECT_EQ(refusal(linuxKernel, deviceTree(64 << 20)), "TRP-boot-009");
  EXPECT_EQ(refusal(pvhKernel(CODE), deviceTree(100)), "TRP-boot-018");
}

TEST(Kernel, ThatIsNotOfTheKindThatWasSaidIsRefused) {
  Loaded loaded;
  auto load = [&](const Bytes& content, KernelKind kind) {
    return codeOf([&]() {
      auto file = fileOf(content);
      loadKernel(BootFile(file, "kernel"), loaded.ram, kind);
    });
  };
  EXPECT_EQ(load(bzImage(CODE), KernelKind::ZIRCON), "TRP-boot-014");
  EXPECT_EQ(load(pvhKernel(CODE), KernelKind::ZIRCON), "TRP-boot-014");
  EXPECT_EQ(load(pvhKernel(CODE), KernelKind::LINUX), "");
  Bytes zircon = bytesOf(uint32_t(0x544f4f42)) + Bytes(4) + bytesOf(uint32_t(0x868cf7e6));
  zircon.resize(64);
  EXPECT_EQ(load(zircon, KernelKind::LINUX), "TRP-boot-017");
  EXPECT_EQ(load(zircon, KernelKind::ANY), "TRP-boot-014");  // without an item's magic
}

TEST(MemoryMap, NamesEveryRegionThatWasPlaced) {
  const RamRange ranges[] = {{0, 4 * MIB}, {64 * MIB, 4096}, {HIGH_RAM_START, 2 * MIB}};
  auto regions = placedRegions(ranges);
  auto file = sandbox::makeSharedMemory("guest-ram", 6 * MIB + 4096);
  GuestRam ram(kj::mv(regions), file.writable);
  uint64_t end = 0, bytes = 0;
  for (auto& entry : memoryMap(ram)) {
    EXPECT_GE(entry.address, end);
    end = entry.address + entry.size;
    if (entry.type == MemoryMapEntry::RAM && entry.address > 0) bytes += entry.size;
  }
  EXPECT_EQ(bytes, 5 * MIB + 4096);  // of the first MiB the rest is its own entry
  EXPECT_EQ(end, HIGH_RAM_START + 2 * MIB);
}

TEST(MemoryMap, HasTheHostsMemoryAsReserved) {
  Loaded loaded(64 * MIB);
  const RamRange hosts[] = {{16 * GIB, MIB}, {GIB, 4096}};
  uint64_t end = 0, reserved = 0;
  for (auto& entry : memoryMap(loaded.ram, hosts)) {
    EXPECT_GE(entry.address, end);
    end = entry.address + entry.size;
    for (auto& range : hosts) {
      if (entry.address != range.guestAddress) continue;
      EXPECT_EQ(entry.type, MemoryMapEntry::RESERVED);
      EXPECT_EQ(entry.size, range.size);
      reserved++;
    }
  }
  EXPECT_EQ(reserved, 2u);
}

TEST(MemoryMap, IsSortedAndWithoutOverlaps) {
  Loaded loaded(LOW_RAM_END + 64 * MIB);
  uint64_t end = 0;
  for (auto& entry : memoryMap(loaded.ram)) {
    EXPECT_GE(entry.address, end);
    end = entry.address + entry.size;
  }
  EXPECT_EQ(end, HIGH_RAM_START + 64 * MIB);
}

}  // namespace
}  // namespace troupe::broker
