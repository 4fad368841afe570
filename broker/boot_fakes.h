#pragma once

#include <asm/bootparam.h>
#include <elf.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

// Kernel files for tests, made of a few bytes of code.
namespace troupe::broker::testing {

using Bytes = std::vector<uint8_t>;

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

template <typename T>
Bytes bytesOf(const T& value) {
  auto start = reinterpret_cast<const uint8_t*>(&value);
  return Bytes(start, start + sizeof(value));
}

inline kj::AutoCloseFd fileOf(const Bytes& content) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("test", MFD_CLOEXEC));
  kj::AutoCloseFd file(fd);
  KJ_SYSCALL(pwrite(fd, content.data(), content.size(), 0));
  return file;
}

constexpr uint64_t ELF_LOAD_ADDRESS = 0x200000;

inline Bytes note(const char* owner, uint32_t type, const Bytes& content) {
  Elf64_Nhdr header{};
  header.n_namesz = strlen(owner) + 1;
  header.n_descsz = content.size();
  header.n_type = type;
  Bytes bytes = bytesOf(header) + Bytes(owner, owner + header.n_namesz);
  bytes.resize((bytes.size() + 3) & ~size_t(3));
  bytes = bytes + content;
  bytes.resize((bytes.size() + 3) & ~size_t(3));
  return bytes;
}

// An ELF64 whose one segment is `code` at ELF_LOAD_ADDRESS, entered at its start.
inline Bytes elfKernel(const Bytes& code, const Bytes& notes) {
  Elf64_Ehdr header{};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_entry = ELF_LOAD_ADDRESS;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;

  Elf64_Phdr load{};
  load.p_type = PT_LOAD;
  load.p_offset = sizeof(header) + 2 * sizeof(load);
  load.p_paddr = ELF_LOAD_ADDRESS;
  load.p_filesz = code.size();
  load.p_memsz = code.size() + 4096;
  Elf64_Phdr noteSegment{};
  noteSegment.p_type = PT_NOTE;
  noteSegment.p_offset = load.p_offset + code.size();
  noteSegment.p_filesz = noteSegment.p_memsz = notes.size();
  return bytesOf(header) + bytesOf(load) + bytesOf(noteSegment) + code + notes;
}

inline Bytes pvhNote() {
  return note("Xen", 18, bytesOf(uint32_t(ELF_LOAD_ADDRESS)));
}

inline Bytes pvhKernel(const Bytes& code) {
  return elfKernel(code, pvhNote());
}

constexpr size_t BZIMAGE_SETUP_SIZE = 1024;

// A bzImage (protocol 2.12) whose 64-bit entry is the start of `code`.
inline Bytes bzImage(const Bytes& code) {
  Bytes kernel(0x200);
  kernel = kernel + code;
  kernel.resize((kernel.size() + 15) & ~size_t(15));

  setup_header header{};
  header.setup_sects = 1;
  header.boot_flag = 0xaa55;
  header.jump = 0x66eb;  // over the rest of the header
  header.header = 0x53726448;
  header.version = 0x20c;
  header.syssize = kernel.size() / 16;
  header.xloadflags = XLF_KERNEL_64;
  header.relocatable_kernel = 1;
  header.kernel_alignment = 0x200000;
  header.pref_address = 0x1000000;
  header.init_size = 0x10000;
  header.initrd_addr_max = 0x7fffffff;
  header.cmdline_size = 2047;

  Bytes setup(BZIMAGE_SETUP_SIZE);
  memcpy(&setup[0x1f1], &header, sizeof(header));
  return setup + kernel;
}

// Code that is the same in 32- and 64-bit mode.
inline Bytes outByte(uint16_t port, uint8_t value) {
  return {0x66, 0xba, uint8_t(port), uint8_t(port >> 8), 0xb0, value, 0xee};
}

inline Bytes print(const std::string& text) {
  Bytes code;
  for (char c : text)
    code = code + outByte(0x3f8, uint8_t(c));
  return code;
}

inline Bytes powerOff() {
  return outByte(0x600, 0x34);
}
inline Bytes haltForever() {
  return {0xf4, 0xeb, 0xfd};
}

}  // namespace troupe::broker::testing
