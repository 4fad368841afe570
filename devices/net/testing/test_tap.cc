#include "devices/net/testing/test_tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace troupe::net::testing {
namespace {

constexpr char NAME[] = "tap0";

ifreq requestFor(short flags) {
  ifreq request = {};
  strcpy(request.ifr_name, NAME);
  request.ifr_flags = flags;
  return request;
}

void leaveTheHostsNetwork() {
  if (unshare(CLONE_NEWNET) == 0) return;
  KJ_SYSCALL(unshare(CLONE_NEWUSER | CLONE_NEWNET));
}

kj::AutoCloseFd openQueue(bool several) {
  int fd;
  KJ_SYSCALL(fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  kj::AutoCloseFd queue(fd);
  auto request = requestFor(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (several ? IFF_MULTI_QUEUE : 0));
  KJ_SYSCALL(ioctl(queue, TUNSETIFF, &request));
  int headerBytes = sizeof(virtio::NetHeader);
  KJ_SYSCALL(ioctl(queue, TUNSETVNETHDRSZ, &headerBytes));
  return queue;
}

// Found out by asking for it, and left as it was.
bool canCutUdp(int queue) {
  constexpr unsigned long USO4 = 0x20, USO6 = 0x40;  // TUN_F_…, younger than the headers here
  return ioctl(queue, TUNSETOFFLOAD, TUN_F_CSUM | USO4 | USO6) == 0 &&
         ioctl(queue, TUNSETOFFLOAD, 0ul) == 0;
}

// The header of a packet socket ends before num_buffers (struct virtio_net_hdr).
constexpr size_t SOCKET_HEADER_BYTES = offsetof(virtio::NetHeader, bufferCount);

void put16(kj::byte* at, uint16_t value) {
  at[0] = value >> 8;
  at[1] = value;
}

uint32_t sum(const kj::byte* bytes, size_t size) {
  uint32_t result = 0;
  for (size_t i = 0; i < size; i += 2)
    result += bytes[i] << 8 | bytes[i + 1];
  return result;
}

uint16_t folded(uint32_t sum) {
  while (sum >> 16 != 0)
    sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

// From 10.0.0.1 to 10.0.0.2.
void putIp(Bytes& frame, uint8_t protocol) {
  put16(frame.begin() + 12, 0x0800);
  kj::byte* ip = frame.begin() + 14;
  memset(ip, 0, 20);
  ip[0] = 0x45;
  put16(ip + 2, frame.size() - 14);
  put16(ip + 6, 0x4000);
  ip[8] = 64;
  ip[9] = protocol;
  const kj::byte addresses[] = {10, 0, 0, 1, 10, 0, 0, 2};
  memcpy(ip + 12, addresses, sizeof(addresses));
  put16(ip + 10, ~folded(sum(ip, 20)));
}

}  // namespace

TestTap::TestTap(uint16_t count) {
  leaveTheHostsNetwork();
  for (uint16_t i = 0; i < count; i++)
    queues.add(openQueue(count > 1));
  udpSegments = canCutUdp(queues[0]);

  int fd;
  KJ_SYSCALL(fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  host = kj::AutoCloseFd(fd);
  auto request = requestFor(0);
  KJ_SYSCALL(ioctl(host, SIOCGIFINDEX, &request));
  interfaceIndex = request.ifr_ifindex;
  request = requestFor(IFF_UP | IFF_PROMISC);
  KJ_SYSCALL(ioctl(host, SIOCSIFFLAGS, &request));
  int on = 1;
  KJ_SYSCALL(setsockopt(host, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)));
  KJ_SYSCALL(setsockopt(host, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)));
  sockaddr_ll address = {};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = interfaceIndex;
  KJ_SYSCALL(bind(host, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

bool TestTap::send(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame) {
  iovec pieces[] = {{const_cast<virtio::NetHeader*>(&header), SOCKET_HEADER_BYTES},
                    {const_cast<kj::byte*>(frame.begin()), frame.size()}};
  ssize_t sent = writev(host, pieces, 2);
  if (sent < 0 && (errno == ENOBUFS || errno == EAGAIN)) return false;
  KJ_ASSERT(sent == ssize_t(SOCKET_HEADER_BYTES + frame.size()), sent, errno);
  return true;
}

kj::Maybe<Bytes> TestTap::receive() {
  auto result = kj::heapArray<kj::byte>(128 << 10);
  virtio::NetHeader header{};
  iovec pieces[] = {{&header, SOCKET_HEADER_BYTES}, {result.begin(), result.size()}};
  ssize_t size = readv(host, pieces, 2);
  if (size < 0) return nullptr;
  return withHeader(header, result.slice(0, size - SOCKET_HEADER_BYTES));
}

void TestTap::remove() {
  struct {
    nlmsghdr message;
    ifinfomsg link;
  } request = {};
  request.message.nlmsg_len = sizeof(request);
  request.message.nlmsg_type = RTM_DELLINK;
  request.message.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.link.ifi_index = interfaceIndex;
  int fd;
  KJ_SYSCALL(fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  kj::AutoCloseFd netlink(fd);
  KJ_SYSCALL(::send(netlink, &request, sizeof(request), 0));
  struct {
    nlmsghdr message;
    nlmsgerr result;
    char rest[256];
  } answer = {};
  KJ_SYSCALL(recv(netlink, &answer, sizeof(answer), 0));
  KJ_ASSERT(answer.result.error == 0, answer.result.error);
}

Packet tcpPacket(const MacAddress& destination, const MacAddress& source, size_t payload,
                 uint16_t segment) {
  constexpr size_t HEADERS = 14 + 20 + 20;
  Packet packet{{}, testing::frame(destination, source, HEADERS + payload, 0x5a)};
  putIp(packet.frame, IPPROTO_TCP);
  kj::byte* tcp = packet.frame.begin() + 34;
  memset(tcp, 0, 20);
  put16(tcp, 1234);
  put16(tcp + 2, 80);
  tcp[12] = 5 << 4;
  tcp[13] = 0x10;  // ACK
  put16(tcp + 14, 0xffff);
  // The sum of the pseudo-header, for the rest to be added to.
  put16(tcp + 16, folded(sum(packet.frame.begin() + 26, 8) + IPPROTO_TCP + uint32_t(20 + payload)));
  packet.header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  packet.header.checksumStart = 34;
  packet.header.checksumOffset = 16;
  if (payload > segment) {
    packet.header.gsoType = virtio::NET_HDR_GSO_TCPV4;
    packet.header.gsoSize = segment;
    packet.header.headerBytes = HEADERS;
  }
  return packet;
}

Packet udpPacket(const MacAddress& destination, const MacAddress& source, size_t payload,
                 uint16_t segment) {
  constexpr size_t HEADERS = 14 + 20 + 8;
  Packet packet{{}, testing::frame(destination, source, HEADERS + payload, 0x5a)};
  putIp(packet.frame, IPPROTO_UDP);
  kj::byte* udp = packet.frame.begin() + 34;
  put16(udp, 1234);
  put16(udp + 2, 9);
  put16(udp + 4, 8 + payload);
  // The sum of the pseudo-header, for the rest to be added to.
  put16(udp + 6, folded(sum(packet.frame.begin() + 26, 8) + IPPROTO_UDP + uint32_t(8 + payload)));
  packet.header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  packet.header.checksumStart = 34;
  packet.header.checksumOffset = 6;
  if (payload > segment) {
    packet.header.gsoType = virtio::NET_HDR_GSO_UDP_L4;
    packet.header.gsoSize = segment;
    packet.header.headerBytes = HEADERS;
  }
  return packet;
}

Bytes udpFrame(const MacAddress& destination, const MacAddress& source, uint16_t port) {
  auto frame = testing::frame(destination, source, 100, 0);
  putIp(frame, IPPROTO_UDP);
  kj::byte* udp = frame.begin() + 34;
  put16(udp, port);
  put16(udp + 2, 9);
  put16(udp + 4, 100 - 34);
  return frame;
}

}  // namespace troupe::net::testing
