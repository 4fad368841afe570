#include "guest/payload/checks.h"
#include "guest/payload/machine.h"
#include "guest/payload/memory.h"
#include "guest/payload/net.h"
#include "guest/payload/report.h"

namespace payload {

void checkNet(const DriverContext& context, const PciFunction& function, unsigned number) {
  Subject subject{"net", number};
  NetCard card;
  bool started = card.start(context, function, Completion::INTERRUPT);
  if (!check(started, subject, "start", "slot ", function.slot(), ", features ",
             Hex{card.virtioDevice().offered()})) {
    return;
  }
  bool any = false;
  for (unsigned i = 0; i < MAC_BYTES; ++i) {
    any |= card.mac()[i] != 0;
  }
  check(any && (card.mac()[0] & 1) == 0, subject, "address", Hex{card.mac()[0]}, " begins it");
  card.publishBuffers();
  // To nobody, of the type for experiments: it is out when the device gives its buffer back.
  uint8_t* frame = card.frame(0);
  for (unsigned i = 0; i < SHORTEST_FRAME; ++i) {
    frame[i] = i < MAC_BYTES ? 0x02 : i < 2 * MAC_BYTES ? card.mac()[i - MAC_BYTES] : 0;
  }
  frame[12] = 0x88;
  frame[13] = 0xb5;
  card.send(0, SHORTEST_FRAME);
  card.publishSent();
  check(card.awaitSent(Completion::INTERRUPT) && card.sent() == 0, subject, "send", SHORTEST_FRAME,
        " bytes");
}

}  // namespace payload
