#include "vmm/words/json_report.h"

#include <capnp/message.h>
#include <capnp/schema.h>

#include "vmm/words/number_text.h"

namespace troupe {

namespace {

using capnp::JsonValue;

constexpr uint64_t LARGEST_EXACT = 1ull << 53;  // of a double's whole numbers

// `value` is what the codec made of a value of `type`.
void makeNumbers(capnp::Type type, JsonValue::Builder value) {
  switch (type.which()) {
    case capnp::schema::Type::UINT64:
    case capnp::schema::Type::INT64:
      if (!value.isString()) return;
      KJ_IF_MAYBE (number, parseNumber(value.asReader().getString(), LARGEST_EXACT)) {
        value.setNumber(static_cast<double>(*number));
      }
      return;
    case capnp::schema::Type::LIST:
      if (!value.isArray()) return;
      for (auto element : value.getArray())
        makeNumbers(type.asList().getElementType(), element);
      return;
    case capnp::schema::Type::STRUCT:
      if (!value.isObject()) return;
      for (auto member : value.getObject()) {
        KJ_IF_MAYBE (field, type.asStruct().findFieldByName(member.asReader().getName())) {
          makeNumbers(field->getType(), member.getValue());
        }
      }
      return;
    default:
      return;
  }
}

}  // namespace

void encodeReport(capnp::DynamicStruct::Reader report, JsonValue::Builder value) {
  capnp::JsonCodec codec;
  capnp::Type type = report.getSchema();
  codec.encode(report, type, value);
  makeNumbers(type, value);
}

kj::String reportJson(capnp::DynamicStruct::Reader report) {
  capnp::MallocMessageBuilder message;
  auto value = message.initRoot<JsonValue>();
  encodeReport(report, value);
  capnp::JsonCodec codec;
  codec.setPrettyPrint(true);
  return codec.encodeRaw(value);
}

}  // namespace troupe
