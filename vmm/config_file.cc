#include "vmm/config_file.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <capnp/schema.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/error_codes.h"
#include "vmm/json_escapes.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

constexpr size_t LARGEST_FILE = 1 << 20;  // a thousand times a long configuration
constexpr uint64_t JSON_NAME_ANNOTATION = 0xfa5b1fd61c2e7c3d;  // $Json.name

// Where in which file a value stands, for errors: `disk[1].path`.
struct Place {
  kj::StringPtr origin;
  kj::String path;

  Place member(kj::StringPtr name) const {
    return {origin, kj::str(path, path.size() > 0 ? "." : "", escape(name, 60))};
  }
  Place element(uint index) const { return {origin, kj::str(path, "[", index, "]")}; }
};

kj::StringPtr jsonName(capnp::StructSchema::Field field) {
  for (auto annotation : field.getProto().getAnnotations()) {
    if (annotation.getId() == JSON_NAME_ANNOTATION) return annotation.getValue().getText();
  }
  return field.getProto().getName();
}

kj::StringPtr kindOf(capnp::JsonValue::Reader value) {
  switch (value.which()) {
    case capnp::JsonValue::NULL_:
      return "null";
    case capnp::JsonValue::BOOLEAN:
      return "true or false";
    case capnp::JsonValue::NUMBER:
      return "a number";
    case capnp::JsonValue::STRING:
      return "text";
    case capnp::JsonValue::ARRAY:
      return "a list";
    case capnp::JsonValue::OBJECT:
      return "an object";
    default:
      return "something else";
  }
}

[[noreturn]] void wrongType(const Place& place, kj::StringPtr expected,
                            capnp::JsonValue::Reader value) {
  auto shown = value.isNumber()   ? kj::str(" ", value.getNumber())
               : value.isString() ? kj::str(" ", quote(value.getString()))
                                  : kj::str();
  UserError(codes::CONFIG_TYPE, kj::str(quote(place.origin), ": \"", place.path, "\" expects ",
                                        expected, ", not ", kindOf(value), shown))
      .raise();
}

void checkObject(capnp::JsonValue::Reader value, capnp::StructSchema schema, const Place& place);

void checkNumber(capnp::JsonValue::Reader value, double largest, const Place& place) {
  double number = value.isNumber() ? value.getNumber() : -1;
  if (!value.isNumber() || number < 0 || number > largest || floor(number) != number) {
    wrongType(place, kj::str("a whole number from 0 to ", static_cast<uint64_t>(largest)), value);
  }
}

void checkValue(capnp::JsonValue::Reader value, capnp::Type type, const Place& place) {
  switch (type.which()) {
    case capnp::schema::Type::TEXT:
      if (!value.isString()) wrongType(place, "text in quotes", value);
      if (value.getString().findFirst('\0') != nullptr) {
        wrongType(place, "text without a NUL character", value);
      }
      return;
    case capnp::schema::Type::BOOL:
      if (!value.isBoolean()) wrongType(place, "true or false", value);
      return;
    case capnp::schema::Type::UINT16:
      return checkNumber(value, UINT16_MAX, place);
    case capnp::schema::Type::UINT32:
      return checkNumber(value, UINT32_MAX, place);
    case capnp::schema::Type::LIST: {
      if (!value.isArray()) wrongType(place, "a list in [ ]", value);
      uint index = 0;
      for (auto element : value.getArray()) {
        checkValue(element, type.asList().getElementType(), place.element(index++));
      }
      return;
    }
    case capnp::schema::Type::STRUCT:
      return checkObject(value, type.asStruct(), place);
    default:
      KJ_FAIL_ASSERT("the configuration's schema has a type this file does not know");
  }
}

void checkObject(capnp::JsonValue::Reader value, capnp::StructSchema schema, const Place& place) {
  if (!value.isObject()) {
    if (place.path.size() > 0) wrongType(place, "an object in { }", value);
    UserError(codes::CONFIG_TYPE, kj::str(quote(place.origin), " holds ", kindOf(value),
                                          " at its top, not an object in { }"))
        .raise();
  }
  auto names = KJ_MAP(field, schema.getFields()) {
    return jsonName(field);
  };
  kj::Vector<kj::StringPtr> seen;
  for (auto entry : value.getObject()) {
    kj::StringPtr name = entry.getName();
    auto inside = place.member(name);
    for (auto earlier : seen) {
      if (earlier == name) {
        UserError(codes::CONFIG_KEY,
                  kj::str(quote(place.origin), ": key \"", inside.path, "\" stands there twice"))
            .raise();
      }
    }
    seen.add(name);
    bool found = false;
    for (auto field : schema.getFields()) {
      if (jsonName(field) == name) {
        checkValue(entry.getValue(), field.getType(), inside);
        found = true;
      }
    }
    if (!found) {
      UserError error(codes::CONFIG_KEY, kj::str(quote(place.origin), ": unknown key \"",
                                                 inside.path, "\"", didYouMean(name, names)));
      error.advice("valid keys", kj::strArray(names, ", ")).raise();
    }
  }
}

kj::Array<char> readAll(kj::StringPtr path) {
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

void readConfigFile(kj::StringPtr path, VmConfig::Builder config) {
  parseConfig(readAll(path), path, config);
}

void parseConfig(kj::ArrayPtr<const char> json, kj::StringPtr origin, VmConfig::Builder config) {
  capnp::JsonCodec codec;
  codec.handleByAnnotation<VmConfig>();
  capnp::MallocMessageBuilder message;
  auto value = message.initRoot<capnp::JsonValue>();
  auto text = withoutUnicodeEscapes(json);
  if (text == nullptr) {
    UserError(codes::CONFIG_NOT_JSON, kj::str(quote(origin), " has a malformed \\u escape"))
        .raise();
  }
  if (readJson(codec, KJ_ASSERT_NONNULL(text), value) != JsonState::WHOLE) {
    notJson(codec, KJ_ASSERT_NONNULL(text), origin);
  }
  checkObject(value, capnp::Schema::from<VmConfig>(), {origin, kj::str()});
  codec.decode(value.asReader(), config);
}

kj::String printConfig(VmConfig::Reader config) {
  capnp::JsonCodec codec;
  codec.handleByAnnotation<VmConfig>();
  codec.setPrettyPrint(true);
  return kj::str(codec.encode(config), "\n");
}

}  // namespace troupe
