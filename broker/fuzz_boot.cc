// Fuzzes the readers of what a guest is booted from: kernels of each kind, initrd and device tree,
// made of sound ones with fields out of range and bytes spoiled. Whatever they say: an error of the
// loader's own, or a guest that lies in its RAM, its parts apart.
#include <asm/bootparam.h>
#include <elf.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "broker/boot_fakes.h"
#include "broker/boot_file.h"
#include "broker/boot_image.h"
#include "broker/boot_info.h"
#include "broker/boot_layout.h"
#include "broker/boot_written.h"
#include "broker/boot_zircon.h"
#include "broker/zircon_fakes.h"
#include "sandbox/fuzz_message.h"
#include "sandbox/shared_memory.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::broker {
namespace {

using fuzz::finding;
using fuzz::Op;
using namespace testing;  // NOLINT: kernels in bytes

constexpr uint64_t RSDP = ACPI_TABLES_ADDRESS;

// What an operation does, modulo as many.
enum Kind : uint8_t {
  KERNEL,        // which template, and in which RAM
  INITRD,        // there is one, of `c` bytes
  DEVICE_TREE,   // the same
  COMMAND_LINE,  // of `c` characters
  FIELD,         // field `b` of the kernel's header says `d`
  CUT,           // a file has another size: before it is opened, or after
  SPOIL_INITRD,  // bytes of it
  SPOIL_TREE,
  SPOIL,  // bytes of the kernel
  KINDS,
};

// A file that is opened anew for each input.
class ReusedFile {
 public:
  explicit ReusedFile(const char* name) {
    int made;
    KJ_SYSCALL(made = memfd_create(name, MFD_CLOEXEC));
    fd = kj::AutoCloseFd(made);
  }
  void fill(const Bytes& content) {
    resize(0);
    KJ_SYSCALL(pwrite(fd, content.data(), content.size(), 0));
  }
  void resize(uint64_t bytes) { KJ_SYSCALL(ftruncate(fd, bytes)); }
  int get() const { return fd; }

 private:
  kj::AutoCloseFd fd;
};

struct Files {
  ReusedFile kernel{"kernel"}, initrd{"initrd"}, tree{"tree"};
};

// Each kind of RAM a machine of ours has: less than any kernel wants, up to the middle of where
// Zircon's data goes, enough, in two pieces.
class Machines {
 public:
  Machines() {
    add({{0, 2 * MIB}});
    add({{0, 64 * MIB + 64 * KIB}});
    add({{0, 96 * MIB}});
    add({{0, 80 * MIB}, {HIGH_RAM_START, 4 * MIB}});
  }
  WrittenRam& of(uint8_t choice) { return *all[choice % all.size()]; }

 private:
  void add(std::initializer_list<RamRange> ranges) {
    all.add(kj::heap<WrittenRam>(placedRegions(kj::arrayPtr(ranges.begin(), ranges.size()))));
  }
  kj::Vector<kj::Own<WrittenRam>> all;
};

const Bytes CODE(64, 0x90);

Bytes linuxNotes() {
  return note("Linux", 1, Bytes(8, 's')) + note("Xen", 6, {'l', 'i', 'n', 'u', 'x', 0}) + pvhNote();
}

// The 32-bit form of a kernel with a PVH note.
Bytes pvhKernel32() {
  auto notes = pvhNote();
  Elf32_Ehdr header{};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS32;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = EM_386;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf32_Phdr);
  header.e_phnum = 2;
  Elf32_Phdr load{}, noteSegment{};
  load.p_type = PT_LOAD;
  load.p_offset = sizeof(header) + 2 * sizeof(load);
  load.p_paddr = ELF_LOAD_ADDRESS;
  load.p_filesz = load.p_memsz = CODE.size();
  noteSegment.p_type = PT_NOTE;
  noteSegment.p_offset = load.p_offset + CODE.size();
  noteSegment.p_filesz = noteSegment.p_memsz = notes.size();
  return bytesOf(header) + bytesOf(load) + bytesOf(noteSegment) + CODE + notes;
}

Bytes someItems() {
  return zirconItem(0x47524149, Bytes(5, 'a')) + zirconItem(0x4b534452, Bytes(64, 'r'));
}

struct Field {
  size_t offset;
  size_t width;
};

// A sound kernel, and where in it stands what a loader believes or not.
struct Template {
  Bytes bytes;
  std::vector<Field> fields;
};

constexpr size_t segment(size_t index, size_t field) {
  return sizeof(Elf64_Ehdr) + index * sizeof(Elf64_Phdr) + field;
}

std::vector<Field> elfFields() {
  std::vector<Field> fields = {
      {offsetof(Elf64_Ehdr, e_entry), 8}, {offsetof(Elf64_Ehdr, e_phoff), 8},
      {offsetof(Elf64_Ehdr, e_phnum), 2}, {offsetof(Elf64_Ehdr, e_phentsize), 2},
      {offsetof(Elf64_Ehdr, e_type), 2},  {offsetof(Elf64_Ehdr, e_machine), 2},
  };
  for (size_t i = 0; i < 2; i++) {
    fields.push_back({segment(i, offsetof(Elf64_Phdr, p_type)), 4});
    fields.push_back({segment(i, offsetof(Elf64_Phdr, p_offset)), 8});
    fields.push_back({segment(i, offsetof(Elf64_Phdr, p_paddr)), 8});
    fields.push_back({segment(i, offsetof(Elf64_Phdr, p_filesz)), 8});
    fields.push_back({segment(i, offsetof(Elf64_Phdr, p_memsz)), 8});
  }
  return fields;
}

std::vector<Field> bzImageFields() {
  constexpr size_t HEADER = 0x1f1;
  return {
      {HEADER + offsetof(setup_header, setup_sects), 1},
      {HEADER + offsetof(setup_header, syssize), 4},
      {HEADER + offsetof(setup_header, jump), 2},
      {HEADER + offsetof(setup_header, version), 2},
      {HEADER + offsetof(setup_header, xloadflags), 2},
      {HEADER + offsetof(setup_header, relocatable_kernel), 1},
      {HEADER + offsetof(setup_header, kernel_alignment), 4},
      {HEADER + offsetof(setup_header, pref_address), 8},
      {HEADER + offsetof(setup_header, init_size), 4},
      {HEADER + offsetof(setup_header, initrd_addr_max), 4},
      {HEADER + offsetof(setup_header, cmdline_size), 4},
  };
}

std::vector<Field> zirconFields() {
  return {{ZIRCON_LENGTH, 4},           {ZIRCON_EXTRA, 4},  {ITEM_SIZE + ZIRCON_LENGTH, 4},
          {ITEM_SIZE + ZIRCON_TYPE, 4}, {2 * ITEM_SIZE, 8}, {2 * ITEM_SIZE + 8, 8}};
}

const Template& templateOf(uint8_t choice) {
  static const Template ALL[] = {
      {bzImage(CODE), bzImageFields()},
      {elfKernel(CODE, {}), elfFields()},
      {pvhKernel(CODE), elfFields()},
      {elfKernel(CODE, linuxNotes()), elfFields()},
      {pvhKernel32(), {}},
      {zirconKernel(CODE, {}), zirconFields()},
      {zirconKernel(CODE, someItems()), zirconFields()},
  };
  return ALL[choice % std::size(ALL)];
}

Bytes deviceTree(size_t size) {
  Bytes tree(size, 't');
  uint32_t words[] = {__builtin_bswap32(0xd00dfeed), __builtin_bswap32(uint32_t(size))};
  memcpy(tree.data(), words, std::min(size, sizeof(words)));
  return tree;
}

// What one input boots.
class Boot {
 public:
  Boot(kj::ArrayPtr<const kj::byte> input, Machines& machines, Files& files)
      : ops(input, KINDS - 1), files(files), machine(machines.of(choice().b)) {
    makeKernel();
    makeOthers();
    cut(/*opened=*/false);
  }

  void run() {
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&] { load(); })) {
      bool isOurs = failure->getType() == kj::Exception::Type::FAILED &&
                    failure->getDescription().startsWith("TRP-boot-0");
      if (!isOurs) finding(kj::str("no error of the loader's: ", *failure));
      // Whatever it came to before: what lies below a kernel is the machine's own.
      if (!isBeyondLoading) machine.requireWritten({{KERNEL_FLOOR, machine.ram.lowEnd()}});
    }
    machine.clear();
  }

 private:
  Op choice() const {
    auto found = ops.of(KERNEL);
    return found.empty() ? Op{} : found.back();
  }

  void makeKernel() {
    auto& from = templateOf(choice().a);
    kernel = from.bytes;
    for (auto& op : ops.of(FIELD)) {
      if (from.fields.empty()) continue;
      auto& field = from.fields[op.b % from.fields.size()];
      uint64_t value = op.d;
      // What is near an end is worth more than what is anywhere.
      if (op.a % 4 == 1) value += machine.ram.lowEnd();
      if (op.a % 4 == 2) value += kernel.size();
      if (op.a % 4 == 3) value += KERNEL_FLOOR;
      memcpy(kernel.data() + field.offset, &value, field.width);
    }
    ops.poke(kj::arrayPtr(kernel.data(), kernel.size()));
    files.kernel.fill(kernel);
  }

  void makeOthers() {
    for (auto& op : ops.of(INITRD)) {
      initrd = op.a & 1 ? zirconContainer(someItems()) : Bytes(op.c % 9000 + 1, 'i');
      hasInitrd = true;
    }
    for (auto& op : ops.of(DEVICE_TREE)) {
      tree = deviceTree(op.c % 9000 + 1);
      hasTree = true;
    }
    spoil(SPOIL_INITRD, initrd);
    spoil(SPOIL_TREE, tree);
    files.initrd.fill(initrd);
    files.tree.fill(tree);
    for (auto& op : ops.of(COMMAND_LINE)) {
      line = kj::str(kj::repeat('c', op.c % 70000));
      if (op.a == 0xff && line.size() > 0) line[op.b % line.size()] = 0;
    }
  }

  void spoil(Kind kind, Bytes& bytes) {
    for (auto& op : ops.of(kind)) {
      if (bytes.size() < sizeof(op.d)) continue;
      memcpy(bytes.data() + op.c % (bytes.size() - sizeof(op.d) + 1), &op.d, sizeof(op.d));
    }
  }

  void cut(bool opened) {
    for (auto& op : ops.of(CUT)) {
      if (bool(op.a & 1) != opened) continue;
      ReusedFile* ones[] = {&files.kernel, &files.initrd, &files.tree};
      ones[op.b % 3]->resize(op.a & 2 ? 100 * MIB : op.c % 12000);
    }
  }

  void load() {
    constexpr KernelKind WANTED[] = {KernelKind::ANY, KernelKind::LINUX, KernelKind::ZIRCON};
    BootFile file(files.kernel.get(), "kernel");
    auto image = loadKernel(file, machine.ram, WANTED[choice().c % 8 < 6 ? 0 : choice().c % 8 - 5]);
    isBeyondLoading = true;
    check(image);
    KernelPages before(machine, image.end);
    KJ_DEFER(before.requireSame());
    kj::Own<BootFile> initrdFile, treeFile;
    if (hasInitrd) initrdFile = kj::heap<BootFile>(files.initrd.get(), "initrd");
    if (hasTree) treeFile = kj::heap<BootFile>(files.tree.get(), "device tree");
    cut(/*opened=*/true);
    BootExtras extras{initrdFile.get(), line, treeFile.get()};
    const RamRange window{2 * GIB, MIB};  // beside all RAM
    auto reserved = kj::arrayPtr(&window, choice().a & 0x80 ? 1 : 0);
    auto state = writeBootInfo(machine.ram, image, file, extras, reserved, RSDP);
    // Nobody promises anything of a file that changes, or that has holes.
    isCut = !ops.of(CUT).empty();
    check(image, state);
  }

  // A kernel that lies in RAM, above what is the machine's own.
  void check(const KernelImage& image) {
    if (image.end > machine.ram.lowEnd()) finding("a kernel ends outside of RAM");
    if (image.entry < KERNEL_FLOOR || image.entry >= image.end) {
      finding("a kernel's entry is not in the kernel");
    }
    machine.requireWritten({{KERNEL_FLOOR, image.end}});
  }

  void check(const KernelImage& image, const BootState& state) {
    if (state.entry != image.entry) finding("the entry is another than the kernel's");
    bool isZircon = state.protocol == BootProtocol::ZIRCON;
    uint64_t above = isZircon ? ZIRCON_DATA_ADDRESS : image.end;
    machine.requireWritten({{0, image.end}, {above, machine.ram.lowEnd()}});
    switch (state.protocol) {
      case BootProtocol::LINUX64:
        return checkLinux(image, machine.read<boot_params>(state.info));
      case BootProtocol::PVH:
        return checkPvh(image, state.info);
      case BootProtocol::ZIRCON:
        return checkItems(state.info);
    }
  }

  void checkLinux(const KernelImage& image, const boot_params& params) {
    uint64_t limit = kj::min(machine.ram.lowEnd(), image.initrdLast + 1);
    uint64_t at = params.hdr.ramdisk_image, size = params.hdr.ramdisk_size;
    if (hasInitrd != (size > 0)) finding("an initrd that is not there, or one that is not told of");
    if (size > 0) checkPart("initrd", initrd, image.end, at, size, limit);
    if (hasTree != (params.hdr.setup_data != 0)) finding("a device tree that nobody is told of");
    if (!hasTree) return;
    auto data = machine.read<setup_data>(params.hdr.setup_data);
    if (data.next != 0 || data.type != SETUP_DTB) finding("what holds the device tree is spoiled");
    checkPart("device tree", tree, image.end, params.hdr.setup_data + sizeof(data), data.len,
              size > 0 ? at : limit);
  }

  void checkPvh(const KernelImage& image, uint64_t info) {
    constexpr uint64_t MODULE_COUNT = 12, MODULES = 16;
    auto count = machine.read<uint32_t>(info + MODULE_COUNT);
    if (count != (hasInitrd ? 1 : 0)) finding("as many modules as there is no initrd");
    if (count == 0) return;
    uint64_t module = machine.read<uint64_t>(info + MODULES);
    checkPart("initrd", initrd, image.end, machine.read<uint64_t>(module),
              machine.read<uint64_t>(module + 8), machine.ram.lowEnd());
  }

  // Behind the kernel, below `limit`, and what its file holds.
  void checkPart(kj::StringPtr what, const Bytes& content, uint64_t from, uint64_t at,
                 uint64_t size, uint64_t limit) {
    if (at < from || at > limit || size > limit - at) {
      finding(kj::str("the ", what, " lies on something else, or where it may not"));
    }
    if (isCut || size > content.size()) return;
    auto place = KJ_ASSERT_NONNULL(machine.ram.slice(at, size));
    if (memcmp(place.begin(), content.data(), size) != 0) finding(kj::str("another ", what));
  }

  // What Zircon is handed can be walked from one end to the other.
  void checkItems(uint64_t address) {
    uint64_t end = address + ITEM_SIZE + machine.read<uint32_t>(address + ZIRCON_LENGTH);
    if (end > machine.ram.lowEnd()) finding("Zircon's data ends outside of RAM");
    size_t lines = 0;
    uint64_t at = address + ITEM_SIZE;
    while (at < end) {
      if (end - at < ITEM_SIZE) finding("an item's header passes the end of its container");
      if (isCut) return;
      if (machine.read<uint32_t>(at + ZIRCON_MAGIC) != ZIRCON_ITEM_MAGIC) {
        finding("an item that is none");
      }
      if (machine.read<uint32_t>(at) == ZIRCON_COMMAND_LINE) lines++;
      uint64_t length = (uint64_t(machine.read<uint32_t>(at + ZIRCON_LENGTH)) + 7) & ~7ull;
      if (length > end - at - ITEM_SIZE) finding("an item passes the end of its container");
      at += ITEM_SIZE + length;
    }
    if (lines == 0) finding("a kernel that is not told its command line");
  }

  const sandbox::fuzzing::Operations ops;
  Files& files;
  WrittenRam& machine;
  Bytes kernel, initrd, tree;
  kj::String line = kj::str("console=ttyS0");
  bool hasInitrd = false, hasTree = false;
  bool isCut = false;
  bool isBeyondLoading = false;
};

}  // namespace
}  // namespace troupe::broker

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace troupe::broker;
  troupe::sandbox::fuzzing::Quiet quiet;
  static Machines machines;
  static Files files;
  Boot(kj::arrayPtr(data, size), machines, files).run();
  return 0;
}
