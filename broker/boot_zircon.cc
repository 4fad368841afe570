#include "broker/boot_zircon.h"

#include <kj/debug.h>

#include <cstring>

#include "broker/boot_layout.h"
#include "broker/refusal.h"
#include "tests/fuzz/planted.h"

namespace troupe::broker {
namespace {

struct ItemHeader {
  uint32_t type;
  uint32_t length;  // of the payload, without what aligns it
  uint32_t extra;
  uint32_t flags;
  uint32_t reserved[2];
  uint32_t magic;
  uint32_t crc32;
};
static_assert(sizeof(ItemHeader) == 32, "layout fixed by Zircon");

struct KernelPayload {  // what the kernel item's payload begins with
  uint64_t entry;       // an absolute address on x86-64
  uint64_t reserveMemorySize;
};
static_assert(sizeof(KernelPayload) == 16, "layout fixed by Zircon");

struct E820Entry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
} __attribute__((packed));
static_assert(sizeof(E820Entry) == 20, "layout fixed by Zircon");

struct UartItem {
  uint64_t base;
  uint32_t type;
  uint32_t irq;
};
static_assert(sizeof(UartItem) == 16, "layout fixed by Zircon");

constexpr uint32_t CONTAINER = 0x544f4f42;        // "BOOT"
constexpr uint32_t KERNEL_X64 = 0x4c4e524b;       // "KRNL"
constexpr uint32_t COMMAND_LINE = 0x4c444d43;     // "CMDL"
constexpr uint32_t ACPI_RSDP = 0x50445352;        // "RSDP"
constexpr uint32_t E820_TABLE = 0x30323845;       // "E820"
constexpr uint32_t DEBUG_UART = 0x54524155;       // "UART"
constexpr uint32_t CONTAINER_MAGIC = 0x868cf7e6;  // in `extra` of a container
constexpr uint32_t ITEM_MAGIC = 0xb5781729;
constexpr uint32_t FLAG_VERSION = 0x00010000;
constexpr uint32_t NO_CRC32 = 0x4a87e8d6;
constexpr uint32_t UART_PC_PORT = 0;

constexpr uint32_t MOST_ITEMS = 4096;            // of one file; Fuchsia's have some twenty
constexpr uint32_t LONGEST_COMMAND_LINE = 4095;  // a page, with its closing zero

uint64_t aligned(uint64_t length) {
  return (length + 7) & ~uint64_t(7);
}

bool isSound(const ItemHeader& header) {
  return header.magic == ITEM_MAGIC && (header.flags & FLAG_VERSION) != 0;
}

// The header of the container that is the whole file.
ItemHeader readContainer(const BootFile& file) {
  auto header = file.readAs<ItemHeader>(0);
  if (header.type != CONTAINER || header.extra != CONTAINER_MAGIC || !isSound(header)) {
    refuse("TRP-boot-014: the ", file.what(), " is no Zircon boot image: its container has type 0x",
           kj::hex(header.type), ", magic 0x", kj::hex(header.magic), " and 0x",
           kj::hex(header.extra));
  }
  if (header.length > file.size() - sizeof(header)) {
    refuse("TRP-boot-003: the ", file.what(), " is cut short: it has ", file.size(),
           " bytes, and its container says ", header.length, " behind the first ", sizeof(header));
  }
  return header;
}

ItemHeader readItem(const BootFile& file, uint64_t offset, uint64_t end) {
  if (sizeof(ItemHeader) > end - offset) {
    refuse("TRP-boot-003: the ", file.what(), " is cut short: its container ends at ", end,
           ", in the header of the item at ", offset);
  }
  auto header = file.readAs<ItemHeader>(offset);
  if (!isSound(header)) {
    refuse("TRP-boot-014: the ", file.what(), " is no sound Zircon boot image: the item at ",
           offset, " has magic 0x", kj::hex(header.magic), " and flags 0x", kj::hex(header.flags));
  }
  bool fits = aligned(header.length) <= end - offset - sizeof(header);
  if (!fits && !fuzz::isPlanted(fuzz::Bug::ITEM_LENGTH)) {
    refuse("TRP-boot-003: the ", file.what(), " is cut short: the item at ", offset, " says ",
           header.length, " bytes, and its container ends at ", end);
  }
  return header;
}

void checkItems(const BootFile& file, ZirconItems items) {
  uint64_t offset = items.offset;
  uint64_t end = items.offset + items.size;
  for (uint32_t count = 0; offset < end; count++) {
    if (count == MOST_ITEMS) {
      refuse("TRP-boot-014: the ", file.what(), " has more than ", MOST_ITEMS, " items");
    }
    offset += sizeof(ItemHeader) + aligned(readItem(file, offset, end).length);
  }
}

// Container of a ramdisk: all of its items.
ZirconItems itemsOf(const BootFile& file) {
  auto container = readContainer(file);
  ZirconItems items{sizeof(container), container.length};
  checkItems(file, items);
  return items;
}

// Fills a container in the guest's memory.
class DataContainer {
 public:
  explicit DataContainer(const GuestRam& ram) : ram(ram) {}

  void copy(const BootFile& file, ZirconItems items) {
    if (items.size == 0) return;
    file.read(items.offset, take(items.size, file.what()));
  }

  void add(uint32_t type, kj::ArrayPtr<const kj::byte> payload) {
    ItemHeader header{type, uint32_t(payload.size()), 0, FLAG_VERSION, {}, ITEM_MAGIC, NO_CRC32};
    auto place = take(sizeof(header) + aligned(payload.size()), "what the kernel is told");
    memcpy(place.begin(), &header, sizeof(header));
    memcpy(place.begin() + sizeof(header), payload.begin(), payload.size());
  }

  template <typename T>
  void addValue(uint32_t type, const T& payload) {
    add(type, kj::arrayPtr(reinterpret_cast<const kj::byte*>(&payload), sizeof(payload)));
  }

  void finish() {
    ItemHeader header{CONTAINER, uint32_t(used), CONTAINER_MAGIC, FLAG_VERSION,
                      {},        ITEM_MAGIC,     NO_CRC32};
    auto place = KJ_ASSERT_NONNULL(ram.slice(ZIRCON_DATA_ADDRESS, sizeof(header)));
    memcpy(place.begin(), &header, sizeof(header));
  }

 private:
  kj::ArrayPtr<kj::byte> take(uint64_t size, kj::StringPtr what) {
    uint64_t before = sizeof(ItemHeader) + used;
    uint64_t limit = ram.lowEnd();
    bool fits = limit > ZIRCON_DATA_ADDRESS && limit - ZIRCON_DATA_ADDRESS >= before &&
                size <= limit - ZIRCON_DATA_ADDRESS - before && size <= UINT32_MAX - before;
    if (!fits) {
      refuse("TRP-boot-009: ", what, ", ", size, " bytes, does not fit between 0x",
             kj::hex(ZIRCON_DATA_ADDRESS + before), " and 0x", kj::hex(limit));
    }
    used += size;
    return KJ_ASSERT_NONNULL(ram.slice(ZIRCON_DATA_ADDRESS + before, size));
  }

  const GuestRam& ram;
  uint64_t used = 0;
};

}  // namespace

bool isZircon(const BootFile& file) {
  if (file.size() < sizeof(ItemHeader)) return false;
  auto header = file.readAs<ItemHeader>(0);
  return header.type == CONTAINER && header.extra == CONTAINER_MAGIC;
}

KernelImage loadZircon(const BootFile& file, const GuestRam& ram) {
  auto container = readContainer(file);
  constexpr uint64_t ITEM_OFFSET = sizeof(container);
  uint64_t fileEnd = sizeof(container) + container.length;
  auto item = readItem(file, ITEM_OFFSET, fileEnd);
  if (item.type != KERNEL_X64 || item.length < sizeof(KernelPayload)) {
    refuse("TRP-boot-015: the ", file.what(), " begins with no kernel for x86-64: its first item ",
           "has type 0x", kj::hex(item.type), " and ", item.length, " bytes");
  }
  constexpr uint64_t PAYLOAD_OFFSET = ITEM_OFFSET + sizeof(item);
  auto payload = file.readAs<KernelPayload>(PAYLOAD_OFFSET);
  uint64_t imageSize = PAYLOAD_OFFSET + aligned(item.length);
  uint64_t reserve = payload.reserveMemorySize;
  if (reserve > ram.size()) {
    refuse("TRP-boot-007: the kernel reserves ", reserve,
           " bytes behind itself, and the guest has ", ram.size() / MIB, " MiB of memory");
  }
  uint64_t code = ZIRCON_KERNEL_ADDRESS + PAYLOAD_OFFSET + sizeof(payload);
  uint64_t codeEnd = ZIRCON_KERNEL_ADDRESS + PAYLOAD_OFFSET + item.length;
  if (payload.entry < code || payload.entry >= codeEnd) {
    refuse("TRP-boot-016: the ", file.what(), " has its entry at 0x", kj::hex(payload.entry),
           ", outside of its code at 0x", kj::hex(code), " to 0x", kj::hex(codeEnd));
  }
  auto place = kernelPlace(ram, ZIRCON_KERNEL_ADDRESS, imageSize + reserve);
  uint64_t end = ZIRCON_KERNEL_ADDRESS + imageSize + reserve;
  if (end > ZIRCON_DATA_ADDRESS) {
    refuse("TRP-boot-016: the kernel and what it reserves end at 0x", kj::hex(end), ", beyond 0x",
           kj::hex(ZIRCON_DATA_ADDRESS), ", where its data lies");
  }
  file.read(0, place.slice(0, imageSize));
  container.length = uint32_t(sizeof(item) + aligned(item.length));
  memcpy(place.begin(), &container, sizeof(container));

  ZirconItems others{imageSize, fileEnd - imageSize};
  checkItems(file, others);
  return KernelImage{BootProtocol::ZIRCON, payload.entry,           end,   ram.lowEnd() - 1,
                     LONGEST_COMMAND_LINE, /*linuxHeader=*/nullptr, others};
}

BootState writeZirconData(const GuestRam& ram, const KernelImage& kernel,
                          const BootFile& kernelFile, const BootExtras& extras,
                          kj::ArrayPtr<const MemoryMapEntry> map, uint64_t rsdp) {
  DataContainer data(ram);
  data.copy(kernelFile, kernel.otherItems);
  KJ_IF_MAYBE (file, extras.initrd) data.copy(*file, itemsOf(*file));
  auto& commandLine = extras.commandLine;
  checkCommandLine(kernel, commandLine);
  data.add(COMMAND_LINE, kj::arrayPtr(reinterpret_cast<const kj::byte*>(commandLine.cStr()),
                                      commandLine.size() + 1));
  data.addValue(ACPI_RSDP, rsdp);
  auto table = KJ_MAP(entry, map) {
    return E820Entry{entry.address, entry.size, entry.type};
  };
  data.add(E820_TABLE, table.asPtr().asBytes());
  data.addValue(DEBUG_UART, UartItem{SERIAL_PORT, UART_PC_PORT, SERIAL_GSI});
  data.finish();
  return BootState{BootProtocol::ZIRCON, kernel.entry, ZIRCON_DATA_ADDRESS};
}

}  // namespace troupe::broker
