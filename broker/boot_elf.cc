// ELF kernels: Linux's vmlinux, and anything with a PVH note.
#include <elf.h>
#include <kj/vector.h>

#include <cstring>

#include "broker/boot_image.h"
#include "broker/boot_layout.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

// Owners and types of the notes that matter.
constexpr uint32_t XEN_ELFNOTE_GUEST_OS = 6;
constexpr uint32_t XEN_ELFNOTE_PHYS32_ENTRY = 18;

constexpr size_t MOST_PROGRAM_HEADERS = 64;  // Linux has 5
constexpr uint64_t LARGEST_NOTES = 64 * KIB;
constexpr uint32_t LINUX_COMMAND_LINE = 2047;  // COMMAND_LINE_SIZE - 1; a vmlinux does not say

// What 32- and 64-bit ELF have in common, in 64-bit words.
struct Segment {
  uint32_t type;
  uint64_t offset;
  uint64_t physicalAddress;
  uint64_t fileSize;
  uint64_t memorySize;
};

struct Elf {
  bool is64;
  uint64_t entry;
  kj::Vector<Segment> segments;
};

struct Notes {
  bool isLinux = false;
  kj::Maybe<uint64_t> pvhEntry;
};

template <typename Header, typename ProgramHeader>
Elf parse(const BootFile& file, uint16_t machine) {
  auto header = file.readAs<Header>(0);
  if (header.e_machine != machine) {
    refuse("TRP-boot-006: the ", file.what(), " is an ELF file for another machine (",
           header.e_machine, "), not for x86-64");
  }
  if (header.e_type != ET_EXEC) {
    refuse("TRP-boot-006: the ", file.what(),
           " is an ELF file but no kernel: it has no fixed address (type ", header.e_type, ")");
  }
  if (header.e_phentsize != sizeof(ProgramHeader) || header.e_phnum == 0 ||
      header.e_phnum > MOST_PROGRAM_HEADERS) {
    refuse("TRP-boot-013: the ", file.what(), " has a broken ELF header: ", header.e_phnum,
           " program headers of ", header.e_phentsize, " bytes");
  }
  ProgramHeader headers[MOST_PROGRAM_HEADERS];
  file.read(header.e_phoff, kj::arrayPtr(reinterpret_cast<kj::byte*>(headers),
                                         header.e_phnum * sizeof(ProgramHeader)));
  Elf elf{sizeof(header.e_entry) == 8, header.e_entry, {}};
  for (auto& p : kj::arrayPtr(headers, header.e_phnum)) {
    elf.segments.add(Segment{p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz});
  }
  return elf;
}

Elf parse(const BootFile& file) {
  kj::byte ident[EI_NIDENT];
  file.read(0, ident);
  if (ident[EI_DATA] == ELFDATA2LSB) {
    if (ident[EI_CLASS] == ELFCLASS64) return parse<Elf64_Ehdr, Elf64_Phdr>(file, EM_X86_64);
    if (ident[EI_CLASS] == ELFCLASS32) return parse<Elf32_Ehdr, Elf32_Phdr>(file, EM_386);
  }
  refuse("TRP-boot-013: the ", file.what(), " has a broken ELF header: class ", ident[EI_CLASS],
         ", byte order ", ident[EI_DATA]);
}

// Takes `size` bytes and what aligns them to 4 off the front of `rest`; none when they are not
// there.
kj::Maybe<kj::ArrayPtr<const kj::byte>> take(kj::ArrayPtr<const kj::byte>& rest, uint32_t size) {
  uint64_t padded = (uint64_t(size) + 3) & ~3ull;
  if (size > rest.size()) return nullptr;
  auto taken = rest.slice(0, size);
  rest = rest.slice(kj::min(padded, uint64_t(rest.size())), rest.size());
  return taken;
}

bool owns(kj::ArrayPtr<const kj::byte> name, kj::StringPtr owner) {
  return name.size() == owner.size() + 1 && memcmp(name.begin(), owner.begin(), name.size()) == 0;
}

void readXenNote(uint32_t type, kj::ArrayPtr<const kj::byte> content, Notes& notes) {
  if (type == XEN_ELFNOTE_GUEST_OS) {
    notes.isLinux = notes.isLinux || owns(content, "linux");
  } else if (type == XEN_ELFNOTE_PHYS32_ENTRY) {
    // A number as wide as the writer's; an entry is below 4 GiB either way.
    uint64_t entry = 0;
    if (content.size() != 4 && content.size() != 8) return;
    memcpy(&entry, content.begin(), content.size());
    notes.pvhEntry = entry;
  }
}

void readNotes(kj::ArrayPtr<const kj::byte> rest, Notes& notes) {
  while (rest.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;  // the same in both classes
    memcpy(&header, rest.begin(), sizeof(header));
    rest = rest.slice(sizeof(header), rest.size());
    KJ_IF_MAYBE (name, take(rest, header.n_namesz)) {
      KJ_IF_MAYBE (content, take(rest, header.n_descsz)) {
        if (owns(*name, "Linux")) notes.isLinux = true;  // its build salt
        if (owns(*name, "Xen")) readXenNote(header.n_type, *content, notes);
        continue;
      }
    }
    return;  // a note that passes the end of its segment ends the list
  }
}

Notes readNotes(const BootFile& file, const Elf& elf) {
  Notes notes;
  for (auto& segment : elf.segments) {
    if (segment.type != PT_NOTE || segment.fileSize > LARGEST_NOTES) continue;
    auto bytes = kj::heapArray<kj::byte>(segment.fileSize);
    file.read(segment.offset, bytes);
    readNotes(bytes, notes);
  }
  return notes;
}

void requireKernel(const BootFile& file, const Elf& elf) {
  for (auto& segment : elf.segments) {
    if (segment.type == PT_INTERP || segment.type == PT_TLS || segment.type == PT_DYNAMIC) {
      refuse("TRP-boot-006: the ", file.what(),
             " is an ELF file but no kernel: it is a program "
             "for an operating system");
    }
  }
}

// Returns the first address above all segments.
uint64_t loadSegments(const BootFile& file, const Elf& elf, const GuestRam& ram) {
  uint64_t end = 0;
  uint64_t fromFile = 0;  // of at most 64 segments, each checked to be below RAM's size
  for (auto& segment : elf.segments) {
    if (segment.type != PT_LOAD || segment.memorySize == 0) continue;
    if (segment.fileSize > segment.memorySize) {
      refuse("TRP-boot-013: the ", file.what(), " has a broken ELF segment: ", segment.fileSize,
             " bytes of file in ", segment.memorySize, " of memory");
    }
    auto place = kernelPlace(ram, segment.physicalAddress, segment.memorySize);
    // No linker gives two segments the same bytes, and the work stays that of reading the file
    // once.
    fromFile += segment.fileSize;
    if (fromFile > file.size()) {
      refuse("TRP-boot-013: the ", file.what(), " has broken ELF segments: they load ", fromFile,
             " bytes from a file of ", file.size());
    }
    // RAM is zero before the guest runs, so what the file does not give needs no writing, unless
    // segments overlap, which no linker makes.
    if (segment.fileSize > 0) file.read(segment.offset, place.slice(0, segment.fileSize));
    end = kj::max(end, segment.physicalAddress + segment.memorySize);
  }
  if (end == 0) refuse("TRP-boot-013: the ", file.what(), " is an ELF file with nothing to load");
  return end;
}

uint64_t requireEntry(const BootFile& file, const Elf& elf, uint64_t entry) {
  for (auto& segment : elf.segments) {
    if (segment.type == PT_LOAD && entry >= segment.physicalAddress &&
        entry - segment.physicalAddress < segment.memorySize) {
      return entry;
    }
  }
  refuse("TRP-boot-013: the ", file.what(), " has its entry at 0x", kj::hex(entry),
         ", outside of all that is loaded");
}

}  // namespace

KernelImage loadElf(const BootFile& file, const GuestRam& ram) {
  Elf elf = parse(file);
  requireKernel(file, elf);
  Notes notes = readNotes(file, elf);

  BootProtocol protocol = BootProtocol::LINUX64;
  uint64_t entry = elf.entry;
  KJ_IF_MAYBE (pvhEntry, notes.pvhEntry) {
    if (!elf.is64 || !notes.isLinux) {
      protocol = BootProtocol::PVH;
      entry = *pvhEntry;
    }
  } else if (!elf.is64) {
    refuse("TRP-boot-006: the ", file.what(), " is a 32-bit ELF file without a PVH note");
  }
  requireEntry(file, elf, entry);
  uint64_t end = loadSegments(file, elf, ram);
  return KernelImage{
      protocol,
      entry,
      end,
      ram.lowEnd() - 1,
      protocol == BootProtocol::PVH ? uint32_t(COMMAND_LINE_ROOM - 1) : LINUX_COMMAND_LINE,
      nullptr};
}

}  // namespace troupe::broker
