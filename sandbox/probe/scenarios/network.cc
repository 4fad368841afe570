// Sockets, and who could be reached by them.

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {
namespace {

long connectTcp(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return answer(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long bindTcp() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(20000);
  return answer(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long sendUdp() {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(9);
  address.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1, which is nobody's
  return answer(sendto(fd, "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long sendUnix(const std::string& name) {
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + 1, name.data(), name.size());
  socklen_t size = offsetof(sockaddr_un, sun_path) + name.size() + 1;
  return answer(sendto(fd, "x", 1, 0, reinterpret_cast<sockaddr*>(&address), size));
}

long bindAbstract() {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_un address = {AF_UNIX, "\0troupe-probe-serves"};
  return answer(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long connectVsock(unsigned cid) {
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = 9;
  return answer(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long bindVsock() {
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = VMADDR_PORT_ANY;
  return answer(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

long connectUnix(const std::string& name, bool abstract) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + abstract, name.data(), name.size());
  socklen_t size = offsetof(sockaddr_un, sun_path) + name.size() + 1;
  return answer(connect(fd, reinterpret_cast<sockaddr*>(&address), size));
}

}  // namespace

void addNetwork(List& list) {
  for (int family = 0; family < 46; family++) {
    if (family == AF_UNIX) continue;  // has scenarios of its own
    list.add("socket that needs privileges", "family " + std::to_string(family) + " raw",
             [=](const Targets&) {
               return answer(socket(family, SOCK_RAW, family == AF_NETLINK ? 63 : 0xff));
             });
    list.plain("socket", "family " + std::to_string(family) + " stream", SYS_socket, family,
               SOCK_STREAM, 0);
    list.plain("socket", "family " + std::to_string(family) + " datagram", SYS_socket, family,
               SOCK_DGRAM, 0);
  }
  list.plain("socket", "UNIX", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  list.add("socket", "pair", [](const Targets&) {
    int fds[2];
    return answer(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
  });
  list.add("reach by socket", "TCP to the host",
           [](const Targets& outside) { return connectTcp(outside.tcpPort); });
  list.add("reach by socket", "UDP", [](const Targets&) { return sendUdp(); });
  list.add("reach by socket", "abstract",
           [](const Targets& outside) { return connectUnix(outside.abstractName, true); });
  list.add("reach by socket", "D-Bus",
           [](const Targets&) { return connectUnix("/run/dbus/system_bus_socket", false); });
  list.add("reach by socket", "abstract, datagrams",
           [](const Targets& outside) { return sendUnix(outside.abstractName); });
  list.add("reach by socket", "vsock to the host's host",
           [](const Targets&) { return connectVsock(VMADDR_CID_HOST); });
  list.add("reach by socket", "vsock to the host",
           [](const Targets&) { return connectVsock(VMADDR_CID_LOCAL); });
  list.add("reach by socket", "another address by fd 3", [](const Targets&) {
    sockaddr_un address = {AF_UNIX, "/run/dbus/system_bus_socket"};
    return call(SYS_sendto, 3, "x", 1, MSG_NOSIGNAL, &address, sizeof(address));
  });
  list.plain("reach by socket", "accept on fd 3", SYS_accept4, 3, nullptr, nullptr, SOCK_NONBLOCK);
  list.add("serve by socket", "TCP", [](const Targets&) { return bindTcp(); });
  list.add("serve by socket", "abstract", [](const Targets&) { return bindAbstract(); });
  list.add("serve by socket", "vsock", [](const Targets&) { return bindVsock(); });
}

}  // namespace troupe::sandbox::probe
