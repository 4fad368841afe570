// What a tap gives without any VM: the limit beside which a network device is measured.
//
// usage: tap_loop write TAP FRAME COUNT    frames written to its fd, as a device does for its guest
//        tap_loop read TAP FRAME COUNT     frames read from it, which waited in its queue
//        tap_loop fill TAP FRAME COUNT     puts frames into the queue of whoever has the tap open
//        tap_loop trip TAP COUNT           questions that the kernel answers (ARP for 10.99.0.1)
//
// All but fill print one number: frames a second, or of trips the median in nanoseconds.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

constexpr size_t HEADER = 12;  // struct virtio_net_hdr_v1
constexpr uint16_t EXPERIMENT = 0x88b5;
constexpr uint8_t MAC[] = {0x02, 0, 0, 0, 0, 0x77};

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

// Not blocking, as a device has it: the kernel then takes a shorter way.
int openTap(const char* name) {
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("/dev/net/tun");
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  int header = HEADER;
  if (ioctl(fd, TUNSETIFF, &request) < 0) fail("TUNSETIFF");
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) fail("TUNSETVNETHDRSZ");
  return fd;
}

std::vector<uint8_t> frameOf(size_t bytes, uint16_t type) {
  std::vector<uint8_t> frame(bytes);
  frame[0] = 0x02;
  memcpy(&frame[6], MAC, sizeof(MAC));
  frame[12] = type >> 8;
  frame[13] = type & 0xff;
  return frame;
}

std::vector<uint8_t> withHeader(const std::vector<uint8_t>& frame) {
  std::vector<uint8_t> message(HEADER);
  message.insert(message.end(), frame.begin(), frame.end());
  return message;
}

int writeFrames(const char* tap, size_t bytes, long count) {
  int fd = openTap(tap);
  auto message = withHeader(frameOf(bytes, EXPERIMENT));
  for (long i = 0; i < 1000; i++)
    if (write(fd, message.data(), message.size()) < 0) fail("write");
  double start = now();
  for (long i = 0; i < count; i++)
    if (write(fd, message.data(), message.size()) < 0) fail("write");
  printf("%.0f\n", count / (now() - start));
  return 0;
}

// What is sent to a tap that was opened a moment ago is dropped until the kernel has taken notice.
void awaitLink(const char* tap) {
  std::string path = "/sys/class/net/" + std::string(tap) + "/operstate";
  for (;;) {
    char state[16] = {};
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, state, sizeof(state) - 1) < 0) fail(path.c_str());
    close(fd);
    if (strcmp(state, "up\n") == 0) return;
    usleep(1000);
  }
}

// All of them go in, or this fails: the tap's queue has room for so many.
void fill(const char* tap, size_t bytes, long count) {
  awaitLink(tap);
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  sockaddr_ll address = {};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = if_nametoindex(tap);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0) fail("bind");
  auto frame = frameOf(bytes, EXPERIMENT);
  iovec data = {frame.data(), frame.size()};
  mmsghdr messages[64] = {};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_iov = &data;
    message.msg_hdr.msg_iovlen = 1;
  }
  while (count > 0) {
    int sent = sendmmsg(fd, messages, std::min(count, 64l), 0);
    if (sent < 0) fail("sendmmsg");
    count -= sent;
  }
  close(fd);
}

int readFrames(const char* tap, size_t bytes, long count) {
  constexpr long WARM_UP = 1000;
  int fd = openTap(tap);
  fill(tap, bytes, WARM_UP + count);
  std::vector<uint8_t> message(65536);
  double start = 0;
  for (long i = -WARM_UP; i < count;) {
    ssize_t size = read(fd, message.data(), message.size());
    if (size < 0) fail("read");
    if (size != ssize_t(HEADER + bytes)) continue;  // one of the kernel's own
    if (++i == 0) start = now();
  }
  printf("%.0f\n", count / (now() - start));
  return 0;
}

int trips(const char* tap, long count) {
  int fd = openTap(tap);
  awaitLink(tap);
  auto frame = frameOf(60, ETHERTYPE_ARP);
  memset(frame.data(), 0xff, 6);
  const uint8_t head[] = {0, 1, 8, 0, 6, 4, 0, 1}, own[] = {10, 99, 0, 2}, host[] = {10, 99, 0, 1};
  memcpy(&frame[14], head, sizeof(head));
  memcpy(&frame[22], MAC, sizeof(MAC));
  memcpy(&frame[28], own, sizeof(own));
  memcpy(&frame[38], host, sizeof(host));
  auto message = withHeader(frame);
  std::vector<uint8_t> answer(65536);
  std::vector<double> times;
  for (long i = 0; i < count; i++) {
    double start = now();
    if (write(fd, message.data(), message.size()) < 0) fail("write");
    for (;;) {
      ssize_t size = read(fd, answer.data(), answer.size());
      if (size < 0 && errno == EAGAIN) continue;
      if (size < 0) fail("read");
      const uint8_t* got = answer.data() + HEADER;
      if (size >= ssize_t(HEADER + 42) && got[12] == 0x08 && got[13] == 0x06 && got[21] == 2) break;
    }
    times.push_back(now() - start);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  printf("%.0f\n", times[times.size() / 2] * 1e9);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  std::string what = count > 2 ? arguments[1] : "";
  auto number = [&](int index) { return atol(arguments[index]); };
  if (what == "write" && count == 5) return writeFrames(arguments[2], number(3), number(4));
  if (what == "read" && count == 5) return readFrames(arguments[2], number(3), number(4));
  if (what == "fill" && count == 5) return fill(arguments[2], number(3), number(4)), 0;
  if (what == "trip" && count == 4) return trips(arguments[2], number(3));
  fprintf(stderr, "usage: tap_loop write|read|fill TAP FRAME COUNT | trip TAP COUNT\n");
  return 2;
}
