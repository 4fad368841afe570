#include "vmm/words/json_report.h"

#include <capnp/message.h>
#include <capnp/schema.capnp.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

// A message with numbers of 64 bits, in a struct, in a list, and with a text beside: what Cap'n
// Proto describes a schema with.
TEST(JsonReport, NumbersAreNumbersAndTextsAreTexts) {
  capnp::MallocMessageBuilder message;
  auto node = message.initRoot<capnp::schema::Node>();
  node.setId(21474836480);
  node.setDisplayName("21474836480");
  auto nested = node.initNestedNodes(2);
  nested[0].setName("7");
  nested[0].setId(1ull << 53);
  nested[1].setId((1ull << 53) + 1);
  auto text = reportJson(node.asReader());
  auto has = [&](const char* part) {
    EXPECT_NE(strstr(text.cStr(), part), nullptr) << text.cStr();
  };
  has("\"id\": 21474836480,");
  has("\"displayName\": \"21474836480\"");
  has("\"name\": \"7\", \"id\": 9007199254740992}");
  // What a reader might round stays text.
  has("\"id\": \"9007199254740993\"");
}

}  // namespace
}  // namespace troupe
