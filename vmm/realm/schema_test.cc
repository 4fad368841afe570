// The interface keeps the names, the order and the numbers of the one it restates.
#include <capnp/dynamic.h>
#include <capnp/schema.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "protos/realm.capnp.h"

namespace troupe::realm {
namespace {

using Names = std::vector<std::string>;

template <typename T>
Names fieldsOf() {
  Names names;
  for (auto field : capnp::Schema::from<T>().getFields()) {
    EXPECT_EQ(field.getProto().getOrdinal().getExplicit(), names.size());
    names.push_back(field.getProto().getName().cStr());
  }
  return names;
}

template <typename T>
Names enumerantsOf() {
  Names names;
  for (auto one : capnp::Schema::from<T>().getEnumerants())
    names.push_back(one.getProto().getName().cStr());
  return names;
}

template <typename T>
Names methodsOf() {
  Names names;
  for (auto method : capnp::Schema::from<T>().getMethods())
    names.push_back(method.getProto().getName().cStr());
  return names;
}

TEST(RealmSchema, KeepsTheEnums) {
  EXPECT_EQ(enumerantsOf<BlockMode>(), (Names{"readWrite", "readOnly", "volatileWrite"}));
  EXPECT_EQ(enumerantsOf<BlockFormat>(), (Names{"raw", "qcow"}));
  EXPECT_EQ(enumerantsOf<Kernel>(), (Names{"zircon", "linux"}));
  EXPECT_EQ(enumerantsOf<MemoryPolicy>(), (Names{"guestCached", "hostCached", "hostDevice"}));
}

TEST(RealmSchema, KeepsTheStructs) {
  EXPECT_EQ(fieldsOf<BlockDevice>(), (Names{"id", "mode", "format", "file"}));
  EXPECT_EQ(fieldsOf<BlockSpec>(), (Names{"path", "format", "mode"}));
  EXPECT_EQ(fieldsOf<MemorySpec>(), (Names{"base", "size", "policy"}));
  EXPECT_EQ(fieldsOf<NetSpec>(), (Names{"macAddress"}));
  EXPECT_EQ(fieldsOf<WaylandDevice>(), (Names{"memory", "dispatcher"}));
  EXPECT_EQ(fieldsOf<MagmaDevice>(), (Names{"memory"}));
  EXPECT_EQ(fieldsOf<LaunchInfo>(), (Names{"url", "guestConfig", "label", "flatNamespace",
                                           "blockDevices", "waylandDevice", "magmaDevice"}));
  EXPECT_EQ(fieldsOf<InstanceInfo>(), (Names{"cid", "label"}));
  EXPECT_EQ(fieldsOf<EnvironmentInfo>(), (Names{"id", "label", "instances"}));
}

TEST(RealmSchema, KeepsTheTableWithItsOrdinalsOneLess) {
  EXPECT_EQ(fieldsOf<GuestConfig>(),
            (Names{"kernel", "kernelPath", "ramdiskPath", "dtbOverlayPath", "blockDevices",
                   "cmdline", "cmdlineAdd", "memory", "interrupts", "cpus", "netDevices",
                   "defaultNet", "virtioBalloon", "virtioConsole", "virtioGpu", "virtioMagma",
                   "virtioRng", "virtioVsock"}));
}

// What a field that may be left out holds when it is given.
std::string typeOf(capnp::Type type) {
  if (type.isList()) return "list of " + typeOf(type.asList().getElementType());
  if (type.isStruct()) {
    auto inner = type.asStruct();
    auto name = std::string(inner.getShortDisplayName().cStr());
    if (name.rfind("Optional", 0) != 0) return name;
    return typeOf(inner.getFieldByName("value").getType());
  }
  if (type.isEnum()) return type.asEnum().getShortDisplayName().cStr();
  if (type.isText()) return "string";
  if (type.isBool()) return "bool";
  if (type.isUInt8()) return "uint8";
  return type.isUInt32() ? "uint32" : "other";
}

TEST(RealmSchema, KeepsTheTypesOfTheTable) {
  Names types;
  for (auto field : capnp::Schema::from<GuestConfig>().getFields())
    types.push_back(typeOf(field.getType()));
  EXPECT_EQ(types,
            (Names{"Kernel", "string", "string", "string", "list of BlockSpec", "string",
                   "list of string", "list of MemorySpec", "list of uint32", "uint8",
                   "list of NetSpec", "bool", "bool", "bool", "bool", "bool", "bool", "bool"}));
}

TEST(RealmSchema, EveryFieldOfTheTableMayBeLeftOut) {
  for (auto field : capnp::Schema::from<GuestConfig>().getFields()) {
    auto type = field.getType();
    EXPECT_TRUE(type.isText() || type.isList() || type.isStruct())
        << field.getProto().getName().cStr();
  }
}

TEST(RealmSchema, KeepsTheProtocols) {
  EXPECT_EQ(methodsOf<Realm>(), (Names{"launchInstance", "listInstances", "connectToInstance",
                                       "connectToBalloon", "getHostVsockEndpoint"}));
  EXPECT_EQ(methodsOf<WaylandDispatcher>(), (Names{"onNewConnection"}));
  EXPECT_EQ(methodsOf<Manager>(),
            (Names{"create", "list", "connect", "listGuests", "connectToGuest"}));
  EXPECT_EQ(methodsOf<BalloonController>(),
            (Names{"getNumPages", "requestNumPages", "getMemStats"}));
}

TEST(RealmSchema, HasTheProtocolsThatItsOriginNames) {
  EXPECT_EQ(methodsOf<Guest>(), (Names{"getSerial", "getConsole", "getHostVsockEndpoint", "stop",
                                       "pause", "resume", "waitForEnd", "waitForStart"}));
  EXPECT_EQ(methodsOf<HostVsockEndpoint>(), (Names{"listen", "connect"}));
  EXPECT_EQ(methodsOf<HostVsockAcceptor>(), (Names{"accept"}));
  EXPECT_EQ(methodsOf<HostVsockConnector>(), (Names{"connect"}));
  EXPECT_EQ(methodsOf<GuestVsockEndpoint>(), (Names{"setContextId", "onShutdown"}));
  EXPECT_EQ(methodsOf<GuestVsockAcceptor>(), (Names{"accept"}));
  EXPECT_EQ(fieldsOf<FlatNamespace>(), (Names{"paths", "directories"}));
  EXPECT_EQ(fieldsOf<MemStat>(), (Names{"tag", "val"}));
}

TEST(RealmSchema, KeepsTheNumbers) {
  EXPECT_EQ(int(BlockMode::READ_WRITE), 0);
  EXPECT_EQ(int(BlockMode::READ_ONLY), 1);
  EXPECT_EQ(int(BlockMode::VOLATILE_WRITE), 2);
  EXPECT_EQ(int(BlockFormat::RAW), 0);
  EXPECT_EQ(int(BlockFormat::QCOW), 1);
  EXPECT_EQ(int(Kernel::ZIRCON), 0);
  EXPECT_EQ(int(Kernel::LINUX), 1);
  EXPECT_EQ(int(MemoryPolicy::GUEST_CACHED), 0);
  EXPECT_EQ(int(MemoryPolicy::HOST_CACHED), 1);
  EXPECT_EQ(int(MemoryPolicy::HOST_DEVICE), 2);
  EXPECT_EQ(MAX_BLOCK_DEVICE_ID_SIZE, 20u);
  EXPECT_EQ(WaylandDevice::Reader().getMemory(), 1ull << 30);
  EXPECT_EQ(MagmaDevice::Reader().getMemory(), 16ull << 30);
}

}  // namespace
}  // namespace troupe::realm
