#include "vmm/config/net_option.h"

#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/option_parts.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr OptionPart PARTS[] = {
    {"tap"_kj, true},  {"fd"_kj, true},      {"user"_kj, false},         {"mac"_kj, true},
    {"mtu"_kj, true},  {"queues"_kj, true},  {"hostfwd"_kj, true, true}, {"pcap"_kj, true},
    {"rate"_kj, true}, {"rate-in"_kj, true}, {"rate-out"_kj, true},      {"nospoof"_kj, false},
};

const OptionForm FORM = {
    "--net"_kj, codes::NET_OPTION, PARTS,
    "its parts are tap=NAME, fd=N or user, and mac=, mtu=, queues=, hostfwd=, pcap=, rate=, "
    "rate-in=, rate-out= and nospoof; a comma in a value is written twice"_kj};

uint32_t numberOf(const SaidPart& part, kj::StringPtr text) {
  auto number = parseNumber(part.value, UINT16_MAX).orDefault(0);
  if (number > 0) return static_cast<uint32_t>(number);
  UserError(codes::NET_OPTION, kj::str("--net ", quote(text), ": ", part.name, "=",
                                       escape(part.value), " is not a number from 1 to 65535"))
      .raise();
}

}  // namespace

void parseNet(kj::StringPtr text, NetOptions::Builder net) {
  kj::Vector<kj::StringPtr> forwards;
  auto parts = readParts(FORM, text);
  for (auto& part : parts) {
    kj::StringPtr name = part.name;
    if (name == "tap") net.setTap(part.value);
    if (name == "fd") net.setFd(part.value);
    if (name == "user") net.setUser(true);
    if (name == "mac") net.setMac(part.value);
    if (name == "mtu") net.setMtu(numberOf(part, text));
    if (name == "queues") net.setQueues(static_cast<uint16_t>(numberOf(part, text)));
    if (name == "hostfwd") forwards.add(part.value);
    if (name == "pcap") net.setPcap(part.value);
    if (name == "rate") net.setRate(part.value);
    if (name == "rate-in") net.setRateIn(part.value);
    if (name == "rate-out") net.setRateOut(part.value);
    if (name == "nospoof") net.setNospoof(true);
  }
  auto list = net.initHostfwd(forwards.size());
  for (uint32_t i = 0; i < forwards.size(); i++)
    list.set(i, forwards[i]);
}

}  // namespace troupe
