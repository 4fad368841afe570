#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace troupe::sandbox {

// The functions of an executable file, and which of them a thread was in.
class ProgramSymbols {
 public:
  // None where the file cannot be read, is no 64-bit ELF file or has no symbol table.
  static std::unique_ptr<ProgramSymbols> read(const std::string& path);

  // Of a stack as CallRecord has it, the functions that called each other, innermost first. A word
  // on the stack counts when it follows a call of the function found before it; indirect calls
  // may be of any.
  std::vector<std::string> callers(const std::vector<uint64_t>& stack) const;

 private:
  struct Function {
    uint64_t begin, end;
    std::string name;  // as the linker knows it
  };
  struct Code {
    uint64_t begin;
    std::string bytes;
  };

  const Function* at(uint64_t address) const;
  // Of the call instruction that ends at `address`.
  enum class Call { NONE, DIRECT, INDIRECT };
  Call callBefore(uint64_t address, uint64_t& target) const;
  // Whether `from` ends in `to` as if it had been called instead (a tail call).
  bool jumps(const Function& from, const Function& to) const;
  // The one function of ours that ends so in `to`; null if none does, or several.
  const Function* onlyJumperOfOurs(const Function& to) const;

  std::vector<Function> functions;  // in the order of their addresses
  std::vector<Code> code;
};

// What to say of a call made there: the innermost function that is not the C library's and, where
// that is a library's, the innermost of Troupe's own: "kj::read() for troupe::rng::serve()". ""
// when nothing is known.
std::string callSite(const std::vector<std::string>& callers);

}  // namespace troupe::sandbox
