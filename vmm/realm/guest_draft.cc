#include "vmm/realm/guest_draft.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <kj/debug.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/json_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::StringPtr LAUNCH = "the launcher's configuration"_kj;
constexpr size_t MOST_NOTES = 16;  // of words that were passed over

struct ToggleName {
  Toggle toggle;
  kj::StringPtr key;
};
constexpr ToggleName TOGGLES[] = {
    {Toggle::BALLOON, "virtio-balloon"_kj}, {Toggle::CONSOLE, "virtio-console"_kj},
    {Toggle::GPU, "virtio-gpu"_kj},         {Toggle::MAGMA, "virtio-magma"_kj},
    {Toggle::RNG, "virtio-rng"_kj},         {Toggle::VSOCK, "virtio-vsock"_kj}};

[[noreturn]] void refuseValue(kj::StringPtr origin, kj::StringPtr key, kj::StringPtr value,
                              kj::StringPtr form) {
  UserError(codes::GUEST_VALUE,
            kj::str(escape(origin), ": \"", key, "\" is ", quote(value), "; it has to be ", form))
      .raise();
}

template <typename T>
bool put(kj::Maybe<T>& field, kj::Maybe<T> value, bool overrides) {
  if (value == nullptr) return false;
  if (field == nullptr || overrides) field = kj::mv(value);
  return true;
}

template <typename T>
bool append(kj::Vector<T>& list, kj::Maybe<T> value) {
  KJ_IF_MAYBE (v, value) list.add(kj::mv(*v));
  return value != nullptr;
}

template <typename To, typename From>
kj::Maybe<To> narrowed(kj::Maybe<From> value) {
  return value.map([](From v) { return To(v); });
}

// An enumerant of a message may be one that the schema does not have.
template <typename Enum>
Enum known(Enum value, Enum last, kj::StringPtr field) {
  if (value > last) refuseValue(LAUNCH, field, kj::str(uint16_t(value)), "one of its names");
  return value;
}

}  // namespace

struct GuestDraft::Key {
  kj::StringPtr name;
  kj::StringPtr form;  // what its value has to be
  bool (*set)(GuestDraft& draft, kj::StringPtr text, bool overrides);
};

const GuestDraft::Key GuestDraft::KEYS[] = {
    {"linux"_kj, "a path"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return d.setKernel(Kernel::LINUX, text, overrides);
     }},
    {"zircon"_kj, "a path"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return d.setKernel(Kernel::ZIRCON, text, overrides);
     }},
    {"ramdisk"_kj, "a path"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return text.size() > 0 && put(d.ramdiskPath, kj::Maybe(kj::heapString(text)), overrides);
     }},
    {"dtb-overlay"_kj, "a path"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return text.size() > 0 && put(d.dtbOverlayPath, kj::Maybe(kj::heapString(text)), overrides);
     }},
    {"block"_kj, "a path that begins with /, and any of fdio, qcow, rw, ro, volatile"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool) {
       kj::Vector<kj::String> ignored;
       if (!append(d.blocks, parseBlock(text, ignored))) return false;
       for (auto& word : ignored)
         d.passOver(word);
       return true;
     }},
    {"cmdline"_kj, "text"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return put(d.cmdline, kj::Maybe(kj::heapString(text)), overrides);
     }},
    {"cmdline-add"_kj, "text"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool) {
       d.cmdlineAdd.add(kj::heapString(text));
       return true;
     }},
    {"memory"_kj, "SIZE, BASE,SIZE or BASE,SIZE,cached|device, as in 512M or 100000000,1G"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool) { return append(d.memory, parseMemory(text)); }},
    {"interrupt"_kj, "a number"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool) {
       return append(d.interrupts, narrowed<uint32_t>(parseCount(text, UINT32_MAX)));
     }},
    {"cpus"_kj, "a number from 1 to 255"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return put(d.cpus, narrowed<uint8_t>(parseCount(text, UINT8_MAX)), overrides);
     }},
    {"net"_kj, "a MAC address like 02:1a:11:00:01:00"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool) { return append(d.nets, parseMac(text)); }},
    {"default-net"_kj, "true or false"_kj,
     [](GuestDraft& d, kj::StringPtr text, bool overrides) {
       return put(d.defaultNet, parseToggle(text), overrides);
     }},
};

// They live as long as the guest, so a bundle has few of them.
void GuestDraft::passOver(kj::StringPtr word) {
  if (notes.size() > MOST_NOTES) return;
  notes.add(notes.size() < MOST_NOTES
                ? kj::str("the word ", quote(word), " of a block device is passed over")
                : kj::str("more words of block devices are passed over"));
}

bool GuestDraft::setKernel(Kernel kind, kj::StringPtr path, bool overrides) {
  if (path.size() == 0) return false;
  // Path and kind belong together: of two kernels the first one is both.
  if (kernelPath == nullptr || overrides) {
    kernelPath = kj::heapString(path);
    kernel = kind;
  }
  return true;
}

void GuestDraft::set(kj::StringPtr name, kj::StringPtr text, bool overrides, kj::StringPtr origin) {
  for (auto& key : KEYS) {
    if (key.name != name) continue;
    if (!key.set(*this, text, overrides)) refuseValue(origin, name, text, key.form);
    return;
  }
  for (auto& one : TOGGLES) {
    if (one.key != name) continue;
    if (!put(toggles[size_t(one.toggle)], parseToggle(text), overrides)) {
      refuseValue(origin, name, text, "true or false");
    }
    return;
  }
  kj::Vector<kj::StringPtr> names;
  for (auto& key : KEYS)
    names.add(key.name);
  for (auto& one : TOGGLES)
    names.add(one.key);
  UserError(codes::GUEST_KEY,
            kj::str(escape(origin), ": unknown key ", quote(name, 60), didYouMean(name, names)))
      .advice("valid keys", kj::strArray(names, ", "))
      .raise();
}

GuestDraft::GuestDraft(GuestConfig::Reader launch)
    : typed(kj::heap<capnp::MallocMessageBuilder>()) {
  typed->initRoot<VmConfig>();
  if (launch.hasKernel()) {
    kernel = known(launch.getKernel().getValue(), Kernel::LINUX, "kernel");
  }
  if (launch.hasKernelPath()) kernelPath = kj::heapString(launch.getKernelPath());
  if (launch.hasRamdiskPath()) ramdiskPath = kj::heapString(launch.getRamdiskPath());
  if (launch.hasDtbOverlayPath()) dtbOverlayPath = kj::heapString(launch.getDtbOverlayPath());
  for (auto block : launch.getBlockDevices()) {
    if (block.getPath().size() == 0) refuseValue(LAUNCH, "blockDevices", "", "the path of a disk");
    blocks.add(BlockWords{kj::heapString(block.getPath()),
                          known(block.getFormat(), BlockFormat::QCOW, "format"),
                          known(block.getMode(), BlockMode::VOLATILE_WRITE, "mode")});
  }
  if (launch.hasCmdline()) cmdline = kj::heapString(launch.getCmdline());
  for (auto word : launch.getCmdlineAdd())
    cmdlineAdd.add(kj::heapString(word));
  for (auto spec : launch.getMemory()) {
    auto policy = known(spec.getPolicy(), MemoryPolicy::HOST_DEVICE, "policy");
    // RAM from 0 on is the guest's first and goes round the hole below 4 GiB.
    bool isPlaced = spec.getBase() != 0 || policy != MemoryPolicy::GUEST_CACHED;
    memory.add(MemoryWords{isPlaced, spec.getBase(), spec.getSize(), policy});
  }
  for (auto number : launch.getInterrupts())
    interrupts.add(number);
  if (launch.hasCpus()) {
    if (launch.getCpus().getValue() == 0) refuseValue(LAUNCH, "cpus", "0", "1 to 255");
    cpus = launch.getCpus().getValue();
  }
  for (auto spec : launch.getNetDevices()) {
    auto octets = spec.getMacAddress().getOctets();
    if (octets.size() != sizeof(Mac)) {
      refuseValue(LAUNCH, "macAddress", kj::str(octets.size(), " bytes"), "6 bytes");
    }
    memcpy(nets.add().octets, octets.begin(), sizeof(Mac));
  }
  if (launch.hasDefaultNet()) defaultNet = launch.getDefaultNet().getValue();
  auto toggle = [this](Toggle which, bool has, OptionalBool::Reader value) {
    if (has) toggles[size_t(which)] = value.getValue();
  };
  toggle(Toggle::BALLOON, launch.hasVirtioBalloon(), launch.getVirtioBalloon());
  toggle(Toggle::CONSOLE, launch.hasVirtioConsole(), launch.getVirtioConsole());
  toggle(Toggle::GPU, launch.hasVirtioGpu(), launch.getVirtioGpu());
  toggle(Toggle::MAGMA, launch.hasVirtioMagma(), launch.getVirtioMagma());
  toggle(Toggle::RNG, launch.hasVirtioRng(), launch.getVirtioRng());
  toggle(Toggle::VSOCK, launch.hasVirtioVsock(), launch.getVirtioVsock());
}

void GuestDraft::merge(kj::ArrayPtr<const char> json, kj::StringPtr origin) {
  // What was launched with follows what the file begins with.
  KJ_IF_MAYBE (line, cmdline) {
    kj::Vector<kj::String> added;
    added.add(kj::mv(*line));
    for (auto& word : cmdlineAdd)
      added.add(kj::mv(word));
    cmdlineAdd = kj::mv(added);
    cmdline = nullptr;
  }
  capnp::JsonCodec codec;
  capnp::MallocMessageBuilder message;
  auto value = message.initRoot<capnp::JsonValue>();
  parseJson(codec, json, origin, value);

  cfgOrigin = kj::heapString(origin);
  auto textOf = [&](kj::StringPtr key, capnp::JsonValue::Reader one) {
    if (!one.isString() || one.getString().findFirst('\0') != nullptr) {
      UserError(codes::GUEST_CFG_SHAPE,
                kj::str(escape(origin), ": \"", escape(key, 60),
                        "\" has to be text in quotes, or a list of such texts"))
          .raise();
    }
    return one.getString();
  };
  if (!value.isObject()) {
    UserError(codes::GUEST_CFG_SHAPE, kj::str(escape(origin), " does not hold an object in { }"))
        .raise();
  }
  for (auto entry : value.asReader().getObject()) {
    auto key = entry.getName();
    auto one = entry.getValue();
    cfgKeys.add(kj::heapString(key));
    if (one.isArray()) {
      for (auto element : one.getArray())
        set(key, textOf(key, element), true, origin);
    } else {
      set(key, textOf(key, one), false, origin);
    }
  }
}

}  // namespace troupe::realm
