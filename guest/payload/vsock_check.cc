#include "guest/payload/checks.h"
#include "guest/payload/memory.h"
#include "guest/payload/report.h"

// The socket device (virtio 1.2, §5.10): a port where nobody listens, and an echo of port 52 if
// somebody listens there.
namespace payload {
namespace {

constexpr unsigned BUFFER = 4096;
constexpr uint16_t RECEIVE = 0, TRANSMIT = 1, EVENTS = 2;
constexpr uint64_t HOST = 2;
constexpr uint32_t NOBODYS_PORT = 51, ECHO_PORT = 52, OUR_PORT = 1024;
constexpr uint16_t REQUEST = 1, RESPONSE = 2, RESET = 3, DATA = 5;
constexpr char TEXT[] = "hello from the guest\n";

struct Header {  // struct virtio_vsock_hdr, §5.10.6
  uint64_t sourceCid, destinationCid;
  uint32_t sourcePort, destinationPort, length;
  uint16_t type, op;
  uint32_t flags, bufferSize, forwarded;
} __attribute__((packed));
static_assert(sizeof(Header) == 44, "layout fixed by §5.10.6");

class Driver {
 public:
  bool start(const DriverContext& context, const PciFunction& function) {
    received = static_cast<uint8_t*>(allocate(BUFFER));
    sent = static_cast<uint8_t*>(allocate(BUFFER));
    bool started = received && sent && device.attach(context, function) && device.negotiate(0) &&
                   device.addQueue(RECEIVE, 8, Completion::INTERRUPT, receiveRing) &&
                   device.addQueue(TRANSMIT, 8, Completion::POLL, transmitRing) &&
                   device.addQueue(EVENTS, 8, Completion::POLL, eventRing) && device.start();
    if (started) cid = device.config<uint64_t>(0);
    return started;
  }

  // Sends a packet to a port of the host and waits for the next one to us, which is in header().
  bool ask(uint16_t op, uint32_t port, const char* payload, uint32_t length) {
    Header ours = {cid, HOST, OUR_PORT, port, length, 1, op, 0, BUFFER, 0};
    memcpy(sent, &ours, sizeof(ours));
    memcpy(sent + sizeof(ours), payload, length);
    transmitRing.descriptor(0) = {reinterpret_cast<uint64_t>(sent), uint32_t(sizeof(ours)) + length,
                                  0, 0};
    transmitRing.offer(0);
    device.publish(transmitRing, TRANSMIT);
    if (!device.await(transmitRing, Completion::POLL)) return false;
    transmitRing.take();
    receiveRing.descriptor(0) = {reinterpret_cast<uint64_t>(received), BUFFER, DESCRIPTOR_WRITE, 0};
    receiveRing.offer(0);
    if (!device.publishForInterrupt(receiveRing, RECEIVE)) return false;
    used = receiveRing.take().length;
    return used >= sizeof(Header) && header().sourceCid == HOST && header().destinationCid == cid &&
           header().sourcePort == port && header().destinationPort == OUR_PORT;
  }

  uint16_t op() { return header().op; }
  bool got(const char* payload, uint32_t length) {
    return used == sizeof(Header) + length &&
           memcmp(received + sizeof(Header), payload, length) == 0;
  }

  VirtioDevice device;
  uint64_t cid = 0;

 private:
  Header header() {
    Header copy;
    memcpy(&copy, received, sizeof(copy));
    return copy;
  }

  Ring receiveRing, transmitRing, eventRing;
  uint8_t* received = nullptr;
  uint8_t* sent = nullptr;
  uint32_t used = 0;
};

}  // namespace

void checkVsock(const DriverContext& context, const PciFunction& function, unsigned number) {
  Subject subject{"vsock", number};
  Driver driver;
  if (!check(driver.start(context, function), subject, "start", "slot ", function.slot(),
             ", features ", Hex{driver.device.offered()})) {
    return;
  }
  check(driver.cid >= 3 && driver.cid < 0xffffffff, subject, "cid", driver.cid);
  bool refused = driver.ask(REQUEST, NOBODYS_PORT, "", 0) && driver.op() == RESET;
  check(refused, subject, "refused", "port ", NOBODYS_PORT);
  if (!driver.ask(REQUEST, ECHO_PORT, "", 0) || driver.op() == RESET) {
    print("note  nobody of the host listens at port ", ECHO_PORT, "\n");
    return;
  }
  constexpr uint32_t LENGTH = sizeof(TEXT) - 1;
  bool echoed = driver.op() == RESPONSE && driver.ask(DATA, ECHO_PORT, TEXT, LENGTH) &&
                driver.op() == DATA && driver.got(TEXT, LENGTH);
  check(echoed, subject, "echo", LENGTH, " bytes");
}

}  // namespace payload
