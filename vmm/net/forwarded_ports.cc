#include "vmm/net/forwarded_ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/io.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::String textOf(const ForwardPlan& forward) {
  return kj::str("hostfwd=", forward.udp ? "udp:" : "tcp:", forward.address,
                 forward.address.size() > 0 ? ":" : "", forward.hostPort, ":", forward.guestPort);
}

// 0, or why nobody can listen there. A family that this host does not have is nothing to listen on.
int tryToListen(const ForwardPlan& forward, const sockaddr* address, socklen_t size) {
  int type = (forward.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC;
  int raw = socket(address->sa_family, type, 0);
  if (raw < 0) return errno == EAFNOSUPPORT ? 0 : errno;
  kj::AutoCloseFd probe(raw);
  int on = 1;
  // As passt has them: connections that ended a minute ago keep no port.
  if (!forward.udp) setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address->sa_family == AF_INET6) setsockopt(probe, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  if (bind(probe, address, size) < 0) return errno;
  if (!forward.udp && listen(probe, 1) < 0) return errno;
  return 0;
}

int tryToListen(const ForwardPlan& forward) {
  sockaddr_in four = {};
  four.sin_family = AF_INET;
  four.sin_port = htons(forward.hostPort);
  if (forward.address.size() > 0) inet_pton(AF_INET, forward.address.cStr(), &four.sin_addr);
  int error = tryToListen(forward, reinterpret_cast<sockaddr*>(&four), sizeof(four));
  if (error != 0 || forward.address.size() > 0) return error;
  sockaddr_in6 six = {};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(forward.hostPort);
  error = tryToListen(forward, reinterpret_cast<sockaddr*>(&six), sizeof(six));
  return error == EADDRNOTAVAIL ? 0 : error;  // there is no IPv6 on this host
}

// The first port that a process without privileges may have: passt has none, whoever starts it.
uint16_t firstFreePort() {
  constexpr uint16_t USUAL = 1024;
  int raw = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY | O_CLOEXEC);
  if (raw < 0) return USUAL;
  kj::AutoCloseFd file(raw);
  char text[16];
  ssize_t size = read(file, text, sizeof(text));
  if (size <= 0) return USUAL;
  if (text[size - 1] == '\n') size--;
  return static_cast<uint16_t>(
      parseNumber(kj::heapString(text, size), UINT16_MAX).orDefault(USUAL));
}

void checkPort(kj::StringPtr option, const ForwardPlan& forward) {
  auto what = kj::str(option, ",", textOf(forward), ": ", forward.udp ? "UDP" : "TCP", " port ",
                      forward.hostPort, " of this machine ");
  uint16_t first = firstFreePort();
  if (forward.hostPort < first) {
    UserError(codes::PORT_NOT_HAD, kj::str(what,
                                           "is privileged, and passt, which would listen there, "
                                           "has no privileges, whoever starts it; ports from ",
                                           first, " on are free to all"))
        .advice("mend",
                kj::str("sudo sysctl net.ipv4.ip_unprivileged_port_start=", forward.hostPort))
        .raise();
  }
  int error = tryToListen(forward);
  if (error == 0) return;
  UserError report(codes::PORT_NOT_HAD, kj::str(what, "cannot be had: ", errnoText(error)));
  if (error == EADDRINUSE) {
    report.advice("see",
                  kj::str("ss -", forward.udp ? "u" : "t", "lnp sport = :", forward.hostPort));
  } else if (error == EADDRNOTAVAIL) {
    report.advice("see", "ip address");
  }
  report.raise();
}

}  // namespace

void checkForwardedPorts(kj::StringPtr option, kj::ArrayPtr<const ForwardPlan> forwards) {
  for (auto& forward : forwards)
    checkPort(option, forward);
}

}  // namespace troupe
