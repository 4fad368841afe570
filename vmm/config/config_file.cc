#include "vmm/config/config_file.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <capnp/schema.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <math.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/json_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

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

}  // namespace

void readConfigFile(kj::StringPtr path, VmConfig::Builder config) {
  parseConfig(readJsonFile(path), path, config);
}

void parseConfig(kj::ArrayPtr<const char> json, kj::StringPtr origin, VmConfig::Builder config) {
  capnp::JsonCodec codec;
  codec.handleByAnnotation<VmConfig>();
  capnp::MallocMessageBuilder message;
  auto value = message.initRoot<capnp::JsonValue>();
  parseJson(codec, json, origin, value);
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
