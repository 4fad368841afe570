#include "vmm/record/event_words.h"

namespace troupe {

namespace {

kj::StringPtr kindWord(HostCall::Kind kind) {
  constexpr kj::StringPtr WORDS[] = {"read"_kj,
                                     "write"_kj,
                                     "flush"_kj,
                                     "discard"_kj,
                                     "write zeroes"_kj,
                                     "write zeroes in place"_kj,
                                     "draw"_kj,
                                     "take input"_kj,
                                     "put out"_kj,
                                     "let a turn begin"_kj,
                                     "have news of a socket"_kj,
                                     "let a second pass"_kj,
                                     "answer for a connection"_kj,
                                     "let a client in"_kj,
                                     "end sending"_kj,
                                     "end receiving"_kj,
                                     "be gone"_kj,
                                     "wait no more"_kj,
                                     "give back"_kj,
                                     "set a tap"_kj,
                                     "connect"_kj};
  size_t index = static_cast<size_t>(kind);
  return index < kj::size(WORDS) ? WORDS[index] : "do something unknown"_kj;
}

kj::String resultWords(int64_t result) {
  if (result >= 0) return kj::str(result);
  return kj::str("error ", 0 - uint64_t(result));
}

kj::String chainWords(uint16_t queue, uint64_t number) {
  return kj::str("chain ", number, " of queue ", queue);
}

kj::String takenWords(TakenChain::Reader chain) {
  auto which = chainWords(chain.getQueue(), chain.getNumber());
  if (chain.getIsIndex()) return kj::str(which, " is refused for the available index");
  return kj::str(which, chain.getRefused() ? " is refused" : " is taken", ", head ",
                 chain.getHead(), ", ", chain.getDescriptors().size(), " descriptors, ",
                 chain.getReadableBytes(), " bytes to read");
}

kj::String callWords(HostCall::Reader call) {
  auto whom = call.getNumber() == 0
                  ? kj::str("beside the chains of queue ", call.getQueue())
                  : kj::str("for ", chainWords(call.getQueue(), call.getNumber()));
  return kj::str(whom, " the host is to ", kindWord(call.getKind()), " ", call.getBytes(), " bytes",
                 call.getOffset() == 0 ? kj::str() : kj::str(" at ", call.getOffset()),
                 call.getDurable() ? ", durably" : "", "; it answers ",
                 resultWords(call.getResult()));
}

// Where two byte strings part; none if they are the same.
kj::Maybe<kj::String> differenceOf(kj::StringPtr what, capnp::Data::Reader then,
                                   capnp::Data::Reader now) {
  if (then.size() != now.size()) {
    return kj::str(what, " had ", then.size(), " bytes and has ", now.size());
  }
  for (size_t i = 0; i < then.size(); i++) {
    if (then[i] != now[i]) {
      return kj::str(what, " had ", kj::hex(then[i]), " in its byte ", i, " and has ",
                     kj::hex(now[i]));
    }
  }
  return nullptr;
}

template <typename T>
kj::Maybe<kj::String> valueDifference(kj::StringPtr what, T then, T now) {
  if (then == now) return nullptr;
  return kj::str(what, " was ", then, " and is ", now);
}

// The first of them that there is.
template <typename... Rest>
kj::Maybe<kj::String> first(kj::Maybe<kj::String> one, Rest&&... rest) {
  if (one != nullptr) return one;
  if constexpr (sizeof...(rest) == 0) {
    return nullptr;
  } else {
    return first(kj::fwd<Rest>(rest)...);
  }
}

kj::Maybe<kj::String> differenceOf(DeviceInfo::Reader then, DeviceInfo::Reader now) {
  auto sizes = [](DeviceInfo::Reader info) {
    return kj::strArray(
        KJ_MAP(size, info.getQueueSizes()) { return kj::str(size); }, " ");
  };
  return first(valueDifference("its kind", then.getDeviceType(), now.getDeviceType()),
               valueDifference("what it offers", kj::str(kj::hex(then.getFeatures())),
                               kj::str(kj::hex(now.getFeatures()))),
               valueDifference("its queues", sizes(then), sizes(now)),
               differenceOf("its configuration space", then.getConfig(), now.getConfig()),
               differenceOf("what may be written of that", then.getConfigWriteMask(),
                            now.getConfigWriteMask()));
}

kj::Maybe<kj::String> differenceOf(TakenChain::Reader then, TakenChain::Reader now) {
  return first(
      valueDifference("its head", then.getHead(), now.getHead()),
      valueDifference("whether it is refused", then.getRefused(), now.getRefused()),
      valueDifference("the number of descriptors read", then.getDescriptors().size(),
                      now.getDescriptors().size()),
      valueDifference("what there is to read", then.getReadableBytes(), now.getReadableBytes()));
}

kj::Maybe<kj::String> differenceOf(HostCall::Reader then, HostCall::Reader now) {
  return first(valueDifference("the host", kj::str("was to ", kindWord(then.getKind())),
                               kj::str("was to ", kindWord(now.getKind()))),
               valueDifference("the place", then.getOffset(), now.getOffset()),
               valueDifference("the number of bytes", then.getBytes(), now.getBytes()),
               valueDifference("durability", then.getDurable(), now.getDurable()),
               valueDifference("the answer", then.getResult(), now.getResult()),
               valueDifference("the checksum of what the host got", kj::str(kj::hex(then.getSum())),
                               kj::str(kj::hex(now.getSum()))),
               differenceOf("what the host gave", then.getData(), now.getData()));
}

kj::Maybe<kj::String> differenceOf(AnsweredChain::Reader then, AnsweredChain::Reader now) {
  return first(valueDifference("the used length", then.getWritten(), now.getWritten()),
               valueDifference("its head", then.getHead(), now.getHead()),
               differenceOf("what was written for the guest", then.getBytes(), now.getBytes()),
               differenceOf("the end of its buffers", then.getTail(), now.getTail()));
}

}  // namespace

kj::String eventWords(FlightEvent::Reader event) {
  switch (event.which()) {
    case FlightEvent::BEGAN:
      return kj::str("the device says what it is");
    case FlightEvent::ATTACHED:
      return kj::str("the device is given the guest's memory");
    case FlightEvent::ACTIVATED:
      return kj::str("the driver is ready, with features 0x",
                     kj::hex(event.getActivated().getFeatures()));
    case FlightEvent::RESET:
      return kj::str("the driver resets the device");
    case FlightEvent::CONFIG_WRITTEN:
      return kj::str("the driver writes ", event.getConfigWritten().getData().size(),
                     " bytes of configuration at ", event.getConfigWritten().getOffset());
    case FlightEvent::HOST_EVENT:
      return kj::str("something happens on the host");
    case FlightEvent::TAKEN:
      return takenWords(event.getTaken());
    case FlightEvent::CALLED:
      return callWords(event.getCalled());
    case FlightEvent::ANSWERED: {
      auto chain = event.getAnswered();
      return kj::str(chainWords(chain.getQueue(), chain.getNumber()), " is answered with ",
                     chain.getWritten(), " bytes");
    }
    case FlightEvent::CONFIG_CHANGED:
      return kj::str("the device changes ", event.getConfigChanged().getChangedData().size(),
                     " bytes of configuration at ", event.getConfigChanged().getChangedOffset());
    case FlightEvent::NEEDS_RESET:
      return kj::str("the device asks for a reset");
    case FlightEvent::ENDED:
      return kj::str("the recording ends");
    case FlightEvent::REPORT_ASKED:
      return kj::str("the device is asked for a report");
  }
  return kj::str("an event of no known kind");
}

kj::Maybe<kj::String> differenceOf(FlightEvent::Reader then, FlightEvent::Reader now) {
  switch (then.which()) {
    case FlightEvent::BEGAN:
      return differenceOf(then.getBegan(), now.getBegan());
    case FlightEvent::TAKEN:
      return differenceOf(then.getTaken(), now.getTaken());
    case FlightEvent::CALLED:
      return differenceOf(then.getCalled(), now.getCalled());
    case FlightEvent::ANSWERED:
      return differenceOf(then.getAnswered(), now.getAnswered());
    case FlightEvent::CONFIG_CHANGED:
      return first(valueDifference("the place", then.getConfigChanged().getChangedOffset(),
                                   now.getConfigChanged().getChangedOffset()),
                   differenceOf("what is there", then.getConfigChanged().getChangedData(),
                                now.getConfigChanged().getChangedData()));
    default:
      return nullptr;
  }
}

}  // namespace troupe
