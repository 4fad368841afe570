// troupe.json: what a bundle says in Troupe's own words.
#include <capnp/compat/json.h>

#include "vmm/config/config_file.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_text.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::StringPtr DEFAULT_CMDLINE = "console=ttyS0"_kj;

// A key of troupe.json and those of guest.cfg that say the same.
struct Twins {
  kj::StringPtr typed;
  kj::StringPtr cfg;
};
constexpr Twins TWINS[] = {
    {"kernel"_kj, "linux"_kj},   {"kernel"_kj, "zircon"_kj},
    {"initrd"_kj, "ramdisk"_kj}, {"cmdline"_kj, "cmdline"_kj},
    {"cpus"_kj, "cpus"_kj},      {"memory"_kj, "memory"_kj},
    {"disk"_kj, "block"_kj},     {"net"_kj, "net"_kj},
    {"rng"_kj, "virtio-rng"_kj}, {"balloon"_kj, "virtio-balloon"_kj},
};

// What a bundle has no say in, and who has.
struct NotItsOwn {
  kj::StringPtr key;
  kj::StringPtr whose;
};
constexpr NotItsOwn FOREIGN[] = {
    {"name"_kj, "whoever launches the guest labels it"_kj},
    {"serial"_kj, "the serial port is whoever's the guest is"_kj},
    {"console"_kj,
     "the console is whoever's the guest is; \"virtio-console\" in guest.cfg switches it"_kj},
    {"vsock"_kj, "the realm gives out cids; \"virtio-vsock\" in guest.cfg switches the device"_kj},
    {"jail"_kj, "whoever runs the guest decides how it is jailed"_kj},
    {"profile-dir"_kj, "whoever runs the guest decides how it is jailed"_kj},
    {"metrics"_kj, "it names a place outside of the bundle"_kj},
    {"record"_kj, "it names a place outside of the bundle"_kj},
    {"host-memory"_kj,
     "whoever runs realms permits it (`troupe serve --permit-host-memory`), and \"memory\" in "
     "guest.cfg asks for it"_kj},
    {"record-limit"_kj, "whoever records says how much"_kj},
};

[[noreturn]] void refuseForeign(kj::StringPtr origin, kj::StringPtr key, kj::StringPtr whose) {
  UserError(codes::BUNDLE_KEY,
            kj::str(escape(origin), ": \"", key, "\" is not a bundle's to say: ", whose))
      .raise();
}

kj::Vector<kj::String> keysOf(kj::ArrayPtr<const char> json, kj::StringPtr origin) {
  capnp::JsonCodec codec;
  capnp::MallocMessageBuilder message;
  auto value = message.initRoot<capnp::JsonValue>();
  parseJson(codec, json, origin, value);
  kj::Vector<kj::String> keys;
  for (auto entry : value.asReader().getObject())
    keys.add(kj::heapString(entry.getName()));
  return keys;
}

// A net of a bundle says what the guest sees of it.
void checkNet(NetOptions::Reader net, kj::StringPtr origin) {
  bool saysBackend = net.getTap().size() > 0 || net.getFd().size() > 0 || net.getUser() ||
                     net.getHostfwd().size() > 0 || net.getPcap().size() > 0 || net.getQueues() > 1;
  if (!saysBackend) return;
  refuseForeign(origin, "net",
                "what is behind a network is the realm's choice; a bundle says mac, mtu, rates and "
                "nospoof");
}

MemoryWords memoryOf(kj::StringPtr text, kj::StringPtr origin) {
  KJ_IF_MAYBE (size, parseSize(text)) {
    return MemoryWords{false, 0, *size, MemoryPolicy::GUEST_CACHED};
  }
  UserError(codes::GUEST_VALUE, kj::str(escape(origin), ": \"memory\" is ", quote(text),
                                        "; it has to be a size such as 512M"))
      .raise();
}

template <typename T>
void setUnlessSaid(kj::Maybe<T>& field, T value) {
  if (field == nullptr) field = kj::mv(value);
}

}  // namespace

void GuestDraft::refuseSetTwice(kj::StringPtr key, kj::StringPtr origin) {
  for (auto& twins : TWINS) {
    if (twins.typed != key) continue;
    for (auto& seen : cfgKeys) {
      if (seen != twins.cfg) continue;
      UserError(codes::GUEST_SET_TWICE,
                kj::str("\"", twins.cfg, "\" in ", escape(cfgOrigin), " and \"", key, "\" in ",
                        escape(origin), " say the same thing; it belongs in one of them"))
          .raise();
    }
  }
}

void GuestDraft::mergeTyped(kj::ArrayPtr<const char> json, kj::StringPtr origin) {
  auto config = typed->initRoot<VmConfig>();
  parseConfig(json, origin, config);
  auto keys = keysOf(json, origin);
  auto has = [&](kj::StringPtr name) {
    for (auto& key : keys) {
      if (key == name) return true;
    }
    return false;
  };
  for (auto& key : keys) {
    for (auto& one : FOREIGN) {
      if (one.key == key) refuseForeign(origin, key, one.whose);
    }
    refuseSetTwice(key, origin);
  }
  auto said = config.asReader();
  for (auto net : said.getNets())
    checkNet(net, origin);

  if (has("kernel") && kernelPath == nullptr) {
    kernelPath = kj::heapString(said.getKernel());
    kernelIsTyped = true;
  }
  if (has("initrd")) setUnlessSaid(ramdiskPath, kj::heapString(said.getInitrd()));
  if (has("cmdline")) {
    auto line = said.getCmdline();
    cmdline =
        line.startsWith("+") ? kj::str(DEFAULT_CMDLINE, " ", line.slice(1)) : kj::heapString(line);
  }
  if (has("cpus")) {
    if (said.getCpus() < 1 || said.getCpus() > UINT8_MAX) {
      UserError(codes::GUEST_VALUE, kj::str(escape(origin), ": \"cpus\" is ", said.getCpus(),
                                            "; it has to be 1 to 255"))
          .raise();
    }
    setUnlessSaid(cpus, uint8_t(said.getCpus()));
  }
  if (has("memory") && memory.size() == 0) memory.add(memoryOf(said.getMemory(), origin));
  if (has("rng")) setUnlessSaid(toggles[size_t(Toggle::RNG)], said.getRng() != "off");
  if (has("balloon")) setUnlessSaid(toggles[size_t(Toggle::BALLOON)], true);
}

void GuestDraft::addOwn(VmConfig::Reader words) {
  typed->setRoot(words);
  kernel = nullptr;
  kernelIsTyped = true;
}

}  // namespace troupe::realm
