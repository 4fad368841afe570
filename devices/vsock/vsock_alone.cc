// Bytes per second of the socket device alone: the executable as shipped in its jail, between a
// program of the host and a driver in this process that shares memory with it, without a VM. Or of
// a bare unix socket pair, between two threads.
//
//   vsock_alone to_guest|to_host|pair [seconds=S] [program=PATH]
//
// Prints one line. Host programs read and write 64 KiB at a time. The driver offers buffers of
// 4 KiB and sends packets of 64 KiB, as Linux does, polls the used rings, and does not copy what it
// gets out of guest memory: that is the guest's own work.
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::VsockBench;
using virtio::testing::FakeDriver;
using virtio::testing::readable;

constexpr size_t BLOCK = 64 << 10;
constexpr uint32_t BUFFER = 4096;
constexpr uint16_t BUFFERS = 256;

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

void makeBlocking(int fd) {
  int flags;
  KJ_SYSCALL(flags = fcntl(fd, F_GETFL));
  KJ_SYSCALL(fcntl(fd, F_SETFL, flags & ~O_NONBLOCK));
}

// A thread of a host's program that moves blocks until the other side ends.
class HostThread {
 public:
  HostThread(int fd, bool writes)
      : fd(fd), thread([this, writes] {
          std::string block(BLOCK, 'x');
          for (;;) {
            ssize_t moved = writes ? send(this->fd, block.data(), block.size(), MSG_NOSIGNAL)
                                   : read(this->fd, &block[0], block.size());
            if (moved <= 0) return;
            bytes += uint64_t(moved);
          }
        }) {}
  ~HostThread() {
    shutdown(fd, SHUT_RDWR);
    thread.join();
  }
  std::atomic<uint64_t> bytes{0};

 private:
  int fd;
  std::thread thread;
};

// Bytes that `count` reports in a second, once it runs evenly.
template <typename Turn, typename Count>
double rate(double seconds, Turn&& turn, Count&& count) {
  double begin = now();
  while (now() - begin < 0.1)
    turn();
  uint64_t before = count();
  begin = now();
  double end = begin;
  while (end - begin < seconds) {
    for (int i = 0; i < 64; i++)
      turn();
    end = now();
  }
  return double(count() - before) / (end - begin);
}

double pairRate(double seconds) {
  auto pair = testing::socketPair();
  makeBlocking(pair.ours);
  makeBlocking(pair.theirs);
  HostThread reader(pair.theirs, false);
  HostThread writer(pair.ours, true);
  return rate(
      seconds, [] { usleep(100); }, [&] { return reader.bytes.load(); });
}

class Guest {
 public:
  explicit Guest(VsockBench& bench) : bench(bench), transmit(*bench.transmitDriver) {
    for (uint16_t i = 0; i < TRANSMITS; i++)
      headers[i] = bench.ram.allocate(64);
    data = bench.ram.allocate(BLOCK);
  }

  // One look at both rings.
  void turn() {
    while (transmit.takeUsed() != nullptr)
      --underWay;
    uint32_t packets = 0;
    while (true) {
      KJ_IF_MAYBE (packet, bench.receiveIfAny()) {
        packets++;
        if (packet->header.op == OP_RW) got += packet->header.length;
        forwarded = packet->header.forwarded;
      } else {
        break;
      }
      if (packets == 64) break;
    }
    if (got - told >= testing::CREDIT / 4) {
      told = uint32_t(got);
      send(OP_CREDIT_UPDATE, 0);
    }
  }

  void fill() {
    while (underWay < TRANSMITS - 1 && sent + BLOCK - forwarded <= testing::CREDIT) {
      sent += uint32_t(BLOCK);
      send(OP_RW, uint32_t(BLOCK));
    }
  }

  uint64_t got = 0;
  uint32_t port = 0;

 private:
  static constexpr uint16_t TRANSMITS = 32;

  void send(uint16_t op, uint32_t length) {
    auto header = VsockBench::header(op, testing::FORWARDED_PORT, port, length);
    header.forwarded = told;
    uint64_t address = headers[next++ % TRANSMITS];
    memcpy(bench.ram.bytes(address, sizeof(header)).begin(), &header, sizeof(header));
    if (length > 0) {
      transmit.add({readable(address, sizeof(header)), readable(data, length)});
    } else {
      transmit.add({readable(address, sizeof(header))});
    }
    ++underWay;
    if (transmit.shouldKick()) bench.device().kick(TRANSMIT_QUEUE);
  }

  VsockBench& bench;
  FakeDriver& transmit;
  uint64_t headers[TRANSMITS];
  uint64_t data;
  uint32_t next = 0;
  uint32_t underWay = 0;
  uint32_t told = 0;
  uint32_t sent = 0;
  uint32_t forwarded = 0;
};

double deviceRate(bool toGuest, double seconds, kj::StringPtr program) {
  VsockBench bench(testing::Where::IN_JAIL, 8 * virtio::testing::FakeRam::MIB, program);
  bench.looksAtEveryByte = false;
  bench.start(BUFFERS, BUFFER);
  auto client = bench.forwarded.connect();
  Guest guest(bench);
  guest.port = bench.acceptIn();
  makeBlocking(client);
  HostThread partner(client, toGuest);
  if (toGuest) {
    return rate(
        seconds, [&] { guest.turn(); }, [&] { return guest.got; });
  }
  return rate(
      seconds,
      [&] {
        guest.turn();
        guest.fill();
      },
      [&] { return partner.bytes.load(); });
}

int run(int argc, char** argv) {
  std::string what = argc > 1 ? argv[1] : "";
  double seconds = 0.5;
  std::string program = "devices/troupe-devices";
  for (int i = 2; i < argc; i++) {
    std::string word = argv[i];
    if (word.compare(0, 8, "seconds=") == 0) seconds = atof(word.c_str() + 8);
    if (word.compare(0, 8, "program=") == 0) program = word.substr(8);
  }
  double bytes;
  if (what == "pair") {
    bytes = pairRate(seconds);
  } else if (what == "to_guest" || what == "to_host") {
    bytes = deviceRate(what == "to_guest", seconds, program.c_str());
  } else {
    fprintf(stderr, "usage: vsock_alone to_guest|to_host|pair [seconds=S] [program=PATH]\n");
    return 2;
  }
  printf("alone %s bytes_per_second=%.0f\n", what.c_str(), bytes);
  return 0;
}

}  // namespace
}  // namespace troupe::vsock

int main(int argc, char** argv) {
  return troupe::vsock::run(argc, argv);
}
