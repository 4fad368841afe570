#include "devices/vsock/connect_line.h"

#include <gtest/gtest.h>
#include <kj/string.h>

namespace troupe::vsock {
namespace {

uint32_t portOf(kj::StringPtr line) {
  return parseConnectLine(line.asArray()).orDefault(UINT32_MAX);
}

TEST(ConnectLine, NamesAPort) {
  EXPECT_EQ(portOf("CONNECT 1024"), 1024);
  EXPECT_EQ(portOf("connect 0"), 0);
  EXPECT_EQ(portOf("CONNECT 4294967294"), 4294967294);
}

TEST(ConnectLine, NothingElseIsOne) {
  for (auto line : {"", "CONNECT", "CONNECT ", "CONNECT  1", " CONNECT 1", "CONNECT 1 ",
                    "CONNECT -1", "CONNECT +1", "CONNECT 0x10", "CONNECT 1\r", "CONNECT 4294967295",
                    "CONNECT 4294967296", "CONNECT 99999999999", "CONNECT 00000000001",
                    "CONNECT\t1", "GET / HTTP/1.1", "CONNECT one"}) {
    EXPECT_EQ(portOf(line), UINT32_MAX) << line;
  }
}

TEST(ConnectLine, BytesThatAreNoTextAreNone) {
  const char bytes[] = {'C', 'O', 'N', 'N', 'E', 'C', 'T', ' ', '1', '\0', '2'};
  EXPECT_TRUE(parseConnectLine(kj::arrayPtr(bytes, sizeof(bytes))) == nullptr);
}

}  // namespace
}  // namespace troupe::vsock
