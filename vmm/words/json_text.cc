#include "vmm/words/json_text.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/words/error_codes.h"
#include "vmm/words/json_escapes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr off_t LARGEST_FILE = 1 << 20;  // a thousand times a long configuration

enum class JsonState { WHOLE, BEGUN, WRONG };

// BEGUN: it is no JSON yet, but could be with more text.
JsonState readJson(const capnp::JsonCodec& codec, kj::ArrayPtr<const char> text,
                   capnp::JsonValue::Builder value) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { codec.decodeRaw(text, value); })) {
    bool tooShort = strstr(exception->getDescription().cStr(), "ends prematurely") != nullptr;
    return tooShort ? JsonState::BEGUN : JsonState::WRONG;
  }
  return JsonState::WHOLE;
}

// Of numbers, true, false, null: with half of one the parser takes nothing.
bool isOfWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.';
}

// The first word or character that cannot stand where it does. The parser does not tell where it
// stopped; but text that is wrong stays so whatever follows, so the place can be searched for.
kj::ArrayPtr<const char> firstWrongWord(const capnp::JsonCodec& codec,
                                        kj::ArrayPtr<const char> text) {
  size_t sound = 0;
  size_t wrong = text.size();
  for (;;) {
    size_t middle = sound + (wrong - sound) / 2;
    auto insideWord = [&]() { return isOfWord(text[middle - 1]) && isOfWord(text[middle]); };
    while (middle < wrong && middle > 0 && insideWord())
      middle++;
    if (middle == wrong) {
      middle = sound + (wrong - sound) / 2;
      while (middle > sound && insideWord())
        middle--;
    }
    if (middle == sound) return text.slice(sound, wrong);
    capnp::MallocMessageBuilder scratch;
    bool isWrong = readJson(codec, text.slice(0, middle), scratch.initRoot<capnp::JsonValue>()) ==
                   JsonState::WRONG;
    (isWrong ? wrong : sound) = middle;
  }
}

[[noreturn]] void notJson(const capnp::JsonCodec& codec, kj::ArrayPtr<const char> text,
                          kj::StringPtr origin) {
  capnp::MallocMessageBuilder scratch;
  auto state = readJson(codec, text, scratch.initRoot<capnp::JsonValue>());
  auto word = state == JsonState::WRONG ? firstWrongWord(codec, text)
                                        : text.slice(text.size(), text.size());
  size_t line = 1;
  size_t column = 1;
  for (char c : text.slice(0, word.begin() - text.begin())) {
    bool beginsCharacter = (c & 0xc0) != 0x80;
    if (beginsCharacter) column++;
    if (c != '\n') continue;
    line++;
    column = 1;
  }
  auto place = kj::str("line ", line, ", column ", column);
  UserError error(
      codes::CONFIG_NOT_JSON,
      kj::str(quote(origin), " is not sound JSON: ",
              state == JsonState::BEGUN ? kj::str("it ends at ", place, ", before it is complete")
                                        : kj::str(word[0] == '"' ? kj::str("a quotation mark")
                                                                 : quote(kj::heapString(word)),
                                                  " is not expected at ", place)));
  bool isBinary = std::find(text.begin(), text.end(), '\0') != text.end();
  if (isBinary) error.advice("try", "--kernel FILE, if it is a kernel");
  error.raise();
}

}  // namespace

kj::Array<char> readJsonFile(kj::StringPtr path) {
  auto refuse = [&](kj::StringPtr reason) {
    UserError(codes::CONFIG_UNREADABLE,
              kj::str("configuration file ", quote(path), " cannot be read: ", reason))
        .raise();
  };
  // O_NONBLOCK: a named pipe is refused below, not waited for.
  int raw = open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (raw < 0) refuse(errnoText(errno));
  kj::AutoCloseFd fd(raw);
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  if (S_ISDIR(info.st_mode)) refuse("it is a directory");
  if (!S_ISREG(info.st_mode)) refuse("it is not a regular file");
  if (info.st_size == 0) refuse("it is empty");
  if (info.st_size > LARGEST_FILE) refuse("it is larger than 1 MiB");
  auto text = kj::heapArray<char>(info.st_size);
  size_t have = 0;
  while (have < text.size()) {
    ssize_t got = ::read(fd, text.begin() + have, text.size() - have);
    if (got < 0) refuse(errnoText(errno));
    if (got == 0) break;
    have += got;
  }
  return kj::heapArray<char>(text.slice(0, have));
}

void parseJson(const capnp::JsonCodec& codec, kj::ArrayPtr<const char> json, kj::StringPtr origin,
               capnp::JsonValue::Builder value) {
  auto text = withoutUnicodeEscapes(json);
  if (text == nullptr) {
    UserError(codes::CONFIG_NOT_JSON, kj::str(quote(origin), " has a malformed \\u escape"))
        .raise();
  }
  if (readJson(codec, KJ_ASSERT_NONNULL(text), value) != JsonState::WHOLE) {
    notJson(codec, KJ_ASSERT_NONNULL(text), origin);
  }
}

}  // namespace troupe
