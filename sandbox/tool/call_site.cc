#include "sandbox/tool/call_site.h"

#include <cxxabi.h>
#include <elf.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace troupe::sandbox {
namespace {

constexpr size_t MOST_CALLERS = 24;
constexpr size_t MOST_SECTIONS = 4096;
constexpr uint64_t MOST_BYTES = 1 << 28;
constexpr size_t LONGEST_NAME = 60;

class ElfFile {
 public:
  explicit ElfFile(const std::string& path) : file(path, std::ios::binary) {}

  bool readSections() {
    Elf64_Ehdr header;
    if (!readAt(0, &header, sizeof(header))) return false;
    bool sound = memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
                 header.e_ident[EI_CLASS] == ELFCLASS64 &&
                 header.e_shentsize == sizeof(Elf64_Shdr) && header.e_shnum <= MOST_SECTIONS;
    if (!sound) return false;
    sections.resize(header.e_shnum);
    return readAt(header.e_shoff, sections.data(), sections.size() * sizeof(Elf64_Shdr));
  }

  std::string content(const Elf64_Shdr& section) {
    if (section.sh_size > MOST_BYTES || section.sh_type == SHT_NOBITS) return "";
    std::string bytes(section.sh_size, 0);
    if (!readAt(section.sh_offset, bytes.data(), bytes.size())) return "";
    return bytes;
  }

  std::vector<Elf64_Shdr> sections;

 private:
  bool readAt(uint64_t offset, void* to, size_t size) {
    file.clear();
    file.seekg(offset);
    return bool(file.read(static_cast<char*>(to), size));
  }

  std::ifstream file;
};

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  free(text);
  return result;
}

// Without template arguments, parameters and anonymous namespaces: "kj::(anonymous
// namespace)::AsyncStreamFd::tryRead(void*, unsigned long)" is kj::AsyncStreamFd::tryRead.
std::string shortened(const std::string& full) {
  std::string name = full;
  for (const char* nothing : {"(anonymous namespace)::", "[abi:cxx11]"}) {
    for (size_t at; (at = name.find(nothing)) != std::string::npos;)
      name.erase(at, strlen(nothing));
  }
  std::string kept;
  int depth = 0;
  for (char c : name) {
    if (c == '<') depth++;
    if (depth == 0 && c == '(') break;
    if (depth == 0) kept += c;
    if (c == '>' && depth > 0) depth--;
  }
  // A return type stands before the name of a template's instance.
  size_t space = kept.rfind(' ');
  if (space != std::string::npos) kept.erase(0, space + 1);
  size_t dot = kept.find('.');  // ".part.0", ".isra.0", ".cold"
  if (dot != std::string::npos) kept.erase(dot);
  if (kept.size() > LONGEST_NAME) {
    size_t scope = kept.find("::", kept.size() - LONGEST_NAME);
    kept.erase(0, scope == std::string::npos ? kept.size() - LONGEST_NAME : scope + 2);
  }
  return kept;
}

bool isOurs(const std::string& caller) {
  return caller.compare(0, 8, "troupe::") == 0 || caller == "main";
}

bool isLibrarys(const std::string& caller) {
  for (const char* scope : {"kj::", "capnp::", "std::", "google::", "absl::"}) {
    if (caller.compare(0, strlen(scope), scope) == 0) return true;
  }
  return false;
}

}  // namespace

std::unique_ptr<ProgramSymbols> ProgramSymbols::read(const std::string& path) {
  ElfFile file(path);
  if (!file.readSections()) return nullptr;
  auto symbols = std::make_unique<ProgramSymbols>();
  for (const Elf64_Shdr& section : file.sections) {
    bool isCode = section.sh_type == SHT_PROGBITS && (section.sh_flags & SHF_EXECINSTR) != 0;
    if (isCode) symbols->code.push_back({section.sh_addr, file.content(section)});
    if (section.sh_type != SHT_SYMTAB || section.sh_link >= file.sections.size()) continue;
    std::string table = file.content(section);
    std::string names = file.content(file.sections[section.sh_link]);
    for (size_t i = 0; i + sizeof(Elf64_Sym) <= table.size(); i += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      memcpy(&symbol, table.data() + i, sizeof(symbol));
      int type = ELF64_ST_TYPE(symbol.st_info);
      bool isFunction = type == STT_FUNC || type == STT_GNU_IFUNC;
      if (!isFunction || symbol.st_value == 0 || symbol.st_name >= names.size()) continue;
      uint64_t size = std::max<uint64_t>(symbol.st_size, 1);
      symbols->functions.push_back(
          {symbol.st_value, symbol.st_value + size, names.c_str() + symbol.st_name});
    }
  }
  if (symbols->functions.empty()) return nullptr;
  std::stable_sort(symbols->functions.begin(), symbols->functions.end(),
                   [](const Function& a, const Function& b) { return a.begin < b.begin; });
  return symbols;
}

const ProgramSymbols::Function* ProgramSymbols::at(uint64_t address) const {
  auto after = std::upper_bound(
      functions.begin(), functions.end(), address,
      [](uint64_t wanted, const Function& function) { return wanted < function.begin; });
  if (after == functions.begin()) return nullptr;
  const Function& function = *(after - 1);
  return address < function.end ? &function : nullptr;
}

ProgramSymbols::Call ProgramSymbols::callBefore(uint64_t address, uint64_t& target) const {
  for (const Code& part : code) {
    if (address < part.begin + 7 || address > part.begin + part.bytes.size()) continue;
    auto byte = [&](int back) { return uint8_t(part.bytes[address - part.begin - back]); };
    if (byte(5) == 0xe8) {
      int32_t distance;
      memcpy(&distance, part.bytes.data() + (address - part.begin - 4), sizeof(distance));
      target = address + int64_t(distance);
      return Call::DIRECT;
    }
    // call *r/m64 is ff /2, of 2, 3, 4, 6 or 7 bytes.
    for (int length : {2, 3, 4, 6, 7}) {
      if (byte(length) == 0xff && (byte(length - 1) >> 3 & 7) == 2) return Call::INDIRECT;
    }
    return Call::NONE;
  }
  return Call::NONE;
}

bool ProgramSymbols::jumps(const Function& from, const Function& to) const {
  for (const Code& part : code) {
    if (from.begin < part.begin || from.end > part.begin + part.bytes.size()) continue;
    for (uint64_t at = from.begin; at + 5 <= from.end; at++) {
      const char* bytes = part.bytes.data() + (at - part.begin);
      if (uint8_t(bytes[0]) != 0xe9) continue;
      int32_t distance;
      memcpy(&distance, bytes + 1, sizeof(distance));
      if (at + 5 + int64_t(distance) == to.begin) return true;
    }
  }
  return false;
}

const ProgramSymbols::Function* ProgramSymbols::onlyJumperOfOurs(const Function& to) const {
  const Function* found = nullptr;
  for (const Function& function : functions) {
    // As it is mangled: what has its own name in the namespace `troupe`.
    bool ours = function.name.find("6troupe") != std::string::npos;
    if (!ours || function.begin == to.begin || !jumps(function, to)) continue;
    if (found != nullptr) return nullptr;
    found = &function;
  }
  return found;
}

std::vector<std::string> ProgramSymbols::callers(const std::vector<uint64_t>& stack) const {
  std::vector<std::string> names;
  const Function* current = stack.empty() ? nullptr : at(stack[0]);
  if (current == nullptr) return names;
  names.push_back(shortened(demangled(current->name)));
  for (size_t i = 1; i < stack.size() && names.size() < MOST_CALLERS; i++) {
    uint64_t target = 0;
    Call call = callBefore(stack[i], target);
    // A call may be the last instruction of its function.
    const Function* caller = at(stack[i] - 1);
    if (call == Call::NONE || caller == nullptr) continue;
    if (call == Call::DIRECT) {
      const Function* called = at(target);
      bool isIt =
          called != nullptr && (called->begin == current->begin || jumps(*called, *current));
      if (!isIt) continue;
    } else if (names.size() == 1) {
      // Nobody calls the C library's wrapper by a pointer: a method did that ends in a jump to it.
      const Function* jumper = onlyJumperOfOurs(*current);
      if (jumper != nullptr) names.push_back(shortened(demangled(jumper->name)));
    }
    current = caller;
    names.push_back(shortened(demangled(caller->name)));
  }
  return names;
}

std::string callSite(const std::vector<std::string>& callers) {
  std::string library, ours;
  for (const std::string& caller : callers) {
    if (ours.empty() && isOurs(caller)) ours = caller;
    if (library.empty() && ours.empty() && isLibrarys(caller)) library = caller;
  }
  if (!library.empty() && !ours.empty()) return library + " for " + ours;
  if (!library.empty() || !ours.empty()) return library + ours;
  return callers.empty() ? "" : callers.back();
}

}  // namespace troupe::sandbox
