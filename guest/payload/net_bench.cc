#include "guest/payload/net_bench.h"

#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/net.h"
#include "guest/payload/report.h"
#include "guest/payload/samples.h"

namespace payload {
namespace {

// IEEE's for experiments: no host has a use for such a frame.
constexpr uint16_t EXPERIMENT = 0x88b5;
constexpr uint16_t ARP = 0x0806;

// The host's address on its tap, and ours.
constexpr uint8_t HOST_IP[] = {10, 99, 0, 1};
constexpr uint8_t OWN_IP[] = {10, 99, 0, 2};

uint16_t typeOf(const uint8_t* frame) {
  return frame[12] << 8 | frame[13];
}

void writeHeader(uint8_t* frame, uint8_t to, const uint8_t* from, uint16_t type) {
  for (unsigned i = 0; i < MAC_BYTES; ++i) {
    frame[i] = to;
    frame[MAC_BYTES + i] = from[i];
  }
  frame[12] = type >> 8;
  frame[13] = type & 0xff;
}

// Who has HOST_IP? The kernel that owns the tap answers (RFC 826).
void writeQuestion(uint8_t* frame, const uint8_t* from) {
  constexpr uint8_t HEAD[] = {0, 1, 8, 0, 6, 4, 0, 1};
  writeHeader(frame, 0xff, from, ARP);
  for (unsigned i = 14; i < SHORTEST_FRAME; ++i) {
    frame[i] = 0;
  }
  for (unsigned i = 0; i < sizeof(HEAD); ++i) {
    frame[14 + i] = HEAD[i];
  }
  for (unsigned i = 0; i < MAC_BYTES; ++i) {
    frame[22 + i] = from[i];
  }
  for (unsigned i = 0; i < sizeof(OWN_IP); ++i) {
    frame[28 + i] = OWN_IP[i];
    frame[38 + i] = HOST_IP[i];
  }
}

bool isAnswer(const NetCard::Received& arrived) {
  const uint8_t* frame = arrived.frame;
  return arrived.length >= 42 && typeOf(frame) == ARP && frame[21] == 2 &&
         memcmp(frame + 28, HOST_IP, sizeof(HOST_IP)) == 0;
}

class NetLoad {
 public:
  NetLoad(NetCard& card, const BenchOptions& options)
      : card(card),
        options(options),
        completion(options.interrupts ? Completion::INTERRUPT : Completion::POLL) {}

  // Cycles of each question go to `samples` unless it is null. False when nothing came back in
  // time.
  bool run(unsigned count, uint32_t* samples) {
    switch (options.op) {
      case NetOp::SEND:
        return send(count);
      case NetOp::RECEIVE:
        return receive(count);
      case NetOp::TRIP:
        return ask(count, samples);
    }
    return false;
  }

 private:
  NetCard& card;
  const BenchOptions& options;
  Completion completion;

  // Keeps `depth` frames on their way until `count` are out.
  bool send(unsigned count) {
    unsigned idle[NetCard::SLOTS];
    unsigned idleCount = options.depth, begun = 0, ended = 0;
    for (unsigned slot = 0; slot < options.depth; ++slot) {
      idle[slot] = slot;
      writeHeader(card.frame(slot), 0x02, card.mac(), EXPERIMENT);
    }
    while (ended < count) {
      while (idleCount > 0 && begun < count) {
        card.send(idle[--idleCount], options.frame);
        ++begun;
      }
      card.publishSent();
      if (!card.hasSent() && !card.awaitSent(completion)) {
        return false;
      }
      while (card.hasSent()) {
        idle[idleCount++] = card.sent();
        ++ended;
      }
    }
    return true;
  }

  bool receive(unsigned count) {
    for (unsigned arrived = 0; arrived < count;) {
      if (!card.hasReceived() && !card.awaitReceived(completion)) {
        return false;
      }
      while (card.hasReceived()) {
        NetCard::Received one = card.received();
        arrived += one.length == options.frame && typeOf(one.frame) == EXPERIMENT;
        card.release(one.slot);
      }
      card.publishBuffers();
    }
    return true;
  }

  bool ask(unsigned count, uint32_t* samples) {
    for (unsigned i = 0; i < count; ++i) {
      uint64_t start = readTsc();
      writeQuestion(card.frame(0), card.mac());
      card.send(0, SHORTEST_FRAME);
      card.publishSent();
      for (bool answered = false; !answered;) {
        if (!card.hasReceived() && !card.awaitReceived(completion)) {
          return false;
        }
        while (card.hasReceived()) {
          NetCard::Received one = card.received();
          answered |= isAnswer(one);
          card.release(one.slot);
        }
      }
      if (samples) {
        samples[i] = readTsc() - start;
      }
      card.publishBuffers();
      // Long out: the answer came after it.
      if (!card.hasSent() && !card.awaitSent(Completion::POLL)) {
        return false;
      }
      card.sent();
    }
    return true;
  }
};

const char* nameOf(NetOp op) {
  return op == NetOp::SEND ? "send" : op == NetOp::RECEIVE ? "receive" : "trip";
}

}  // namespace

void benchNet(const DriverContext& context, const PciFunction& function,
              const BenchOptions& options, TscRate rate) {
  Subject subject{"bench", options.net};
  NetCard card;
  Completion completion = options.interrupts ? Completion::INTERRUPT : Completion::POLL;
  bool started = card.start(context, function, completion);
  if (!check(started, subject, "start", started ? card.sendSlots() : 0, " slots")) {
    return;
  }
  if (!check(options.depth <= card.sendSlots(), subject, "depth", "at most ", card.sendSlots())) {
    return;
  }
  auto samples = static_cast<uint32_t*>(allocate(options.count * sizeof(uint32_t)));
  if (!check(samples, subject, "memory", options.count, " samples")) {
    return;
  }
  card.publishBuffers();
  print("bench net ready\n");
  NetLoad load(card, options);
  bool good = options.warmup == 0 || load.run(options.warmup, nullptr);
  for (unsigned round = 0; good && round < options.rounds; ++round) {
    VirtioDevice& device = card.virtioDevice();
    uint64_t notifications = device.notifications, interrupts = device.interrupts;
    uint64_t start = readTsc();
    good = load.run(options.count, samples);
    uint64_t cycles = readTsc() - start;
    if (!good) {
      break;
    }
    print("bench net net=", options.net, " round=", round, " op=", nameOf(options.op),
          " mode=", options.interrupts ? "irq" : "poll", " frame=", options.frame,
          " depth=", options.depth, " count=", options.count,
          " fps=", perSecond(options.count, cycles, rate));
    if (options.op == NetOp::TRIP) {
      heapSort(samples, options.count);
      print(" p50_ns=", nanoseconds(samples[(options.count - 1) / 2], rate),
            " p99_ns=", nanoseconds(samples[(options.count - 1) / 100 * 99], rate));
    }
    print(" notifications=", device.notifications - notifications,
          " interrupts=", device.interrupts - interrupts, " cycles=", cycles, " tsc_hz=", rate.hz,
          " tsc_from=", rate.source, "\n");
  }
  check(good, subject, "frames", good ? "all there" : "none came back");
}

}  // namespace payload
