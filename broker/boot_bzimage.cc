// Linux's bzImage: Documentation/x86/boot.rst ("The Linux/x86 Boot Protocol").
#include <cstddef>
#include <cstring>

#include "broker/boot_image.h"
#include "broker/boot_layout.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint64_t HEADER_OFFSET = 0x1f1;
constexpr uint64_t SECTOR = 512;
constexpr uint16_t VERSION_WITH_XLOADFLAGS = 0x20c;
constexpr uint64_t ENTRY64_OFFSET = 0x200;  // from where the kernel proper is loaded
constexpr uint32_t DEFAULT_ALIGNMENT = 2 * MIB;
constexpr uint32_t DEFAULT_COMMAND_LINE = 255;

static_assert(sizeof(setup_header) == 0x26c - HEADER_OFFSET, "layout fixed by the boot protocol");

setup_header readHeader(const BootFile& file) {
  // The header says how long it is: the jump at 0x200 leads past it. What lies beyond is code.
  auto header = file.readAs<setup_header>(HEADER_OFFSET);
  size_t length = 0x202 + (header.jump >> 8) - HEADER_OFFSET;
  if (length < sizeof(header)) {
    memset(reinterpret_cast<kj::byte*>(&header) + length, 0, sizeof(header) - length);
  }
  return header;
}

// Where the kernel goes: where it likes to be, or, if it can be moved, the lowest place there is.
uint64_t loadAddress(const setup_header& header, const GuestRam& ram) {
  uint64_t preferred = header.pref_address;
  if (!header.relocatable_kernel) return preferred;
  if (preferred >= KERNEL_FLOOR && preferred < ram.lowEnd() &&
      header.init_size <= ram.lowEnd() - preferred) {
    return preferred;
  }
  uint64_t alignment = header.kernel_alignment;
  if (alignment == 0 || (alignment & (alignment - 1)) != 0) alignment = DEFAULT_ALIGNMENT;
  return (KERNEL_FLOOR + alignment - 1) & ~(alignment - 1);
}

}  // namespace

KernelImage loadBzImage(const BootFile& file, const GuestRam& ram) {
  setup_header header = readHeader(file);
  if (header.version < VERSION_WITH_XLOADFLAGS || !(header.xloadflags & XLF_KERNEL_64)) {
    refuse("TRP-boot-005: the ", file.what(), " is a bzImage without a 64-bit entry (protocol ",
           header.version >> 8, ".", header.version & 0xff,
           "); an x86-64 kernel from Linux 3.8 or later has one");
  }
  uint64_t setupSectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  uint64_t kernelOffset = (setupSectors + 1) * SECTOR;
  if (file.size() <= kernelOffset + ENTRY64_OFFSET) {
    refuse("TRP-boot-003: the ", file.what(), " is cut short: it has ", file.size(),
           " bytes, and its kernel begins at ", kernelOffset);
  }
  // `syssize` counts 16-byte units from there on; what a signature adds comes after.
  uint64_t promised = uint64_t(header.syssize) * 16;
  uint64_t kernelSize = file.size() - kernelOffset;
  if (promised > ((kernelSize + 15) & ~15ull)) {
    refuse("TRP-boot-003: the ", file.what(), " is cut short: its header promises ", promised,
           " bytes from offset ", kernelOffset, ", and ", kernelSize, " are there");
  }

  uint64_t address = loadAddress(header, ram);
  uint64_t claimed = kj::max(uint64_t(header.init_size), kernelSize);
  auto place = kernelPlace(ram, address, claimed);
  file.read(kernelOffset, place.slice(0, kernelSize));

  uint32_t commandLine = header.cmdline_size == 0 ? DEFAULT_COMMAND_LINE : header.cmdline_size;
  header.code32_start = uint32_t(address);
  return KernelImage{BootProtocol::LINUX64, address + ENTRY64_OFFSET,
                     address + claimed,     header.initrd_addr_max,
                     commandLine,           header};
}

}  // namespace troupe::broker
