#include "vmm/guest/guest_command.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/guest/debian_guest.h"
#include "vmm/guest/new_bundle.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr EPILOG =
    R"(A bundle is a folder with a kernel, what belongs to it, and guest.cfg, which says what the guest is made
of; see docs/bundles.md. --from-debian takes Debian's current cloud kernel, by apt, and makes a root disk of
64 MiB with busybox. Files that are named are copied into the bundle.)"_kj;

struct Wanted {
  bool fromDebian = false;
  kj::Maybe<kj::StringPtr> kernel, zircon, initrd, cmdline, memory, cpus;
  kj::Vector<kj::StringPtr> disks;
};

[[noreturn]] void badWords(kj::StringPtr why) {
  UserError(codes::ARGUMENTS, kj::str("troupe guest create ", why))
      .advice("see", "troupe guest create --help")
      .raise();
}

void addOptions(CommandLine& line, Wanted& wanted) {
  line.add({"from-debian", "", "a Debian kernel and a small root disk", false,
            [&](kj::StringPtr) { wanted.fromDebian = true; }});
  auto text = [&](kj::StringPtr name, kj::StringPtr value, kj::StringPtr help,
                  kj::Maybe<kj::StringPtr>& target) {
    line.add({name, value, help, false, [&target](kj::StringPtr word) { target = word; }});
  };
  text("kernel", "FILE", "a Linux kernel, or another one in ELF form", wanted.kernel);
  text("zircon", "FILE", "a Zircon boot image", wanted.zircon);
  text("initrd", "FILE", "its initial RAM disk; none unless given", wanted.initrd);
  line.add({"disk", "FILE", "a raw disk; may be given several times", true,
            [&](kj::StringPtr word) { wanted.disks.add(word); }});
  line.add({"cmdline", "TEXT", "its command line; none unless given", false,
            [&](kj::StringPtr word) { wanted.cmdline = word; }, nullptr, /*mayBeEmpty=*/true});
  text("memory", "SIZE", "its RAM: 512M; 1G unless given", wanted.memory);
  text("cpus", "N", "its CPUs, 1 to 255; as many as the host has unless given", wanted.cpus);
  line.epilog(EPILOG);
}

// guest.cfg: an object of texts.
class CfgText {
 public:
  void add(kj::StringPtr key, kj::StringPtr value) {
    capnp::MallocMessageBuilder message;
    auto text = message.initRoot<capnp::JsonValue>();
    text.setString(value);
    lines.add(kj::str("  \"", key, "\": ", capnp::JsonCodec().encodeRaw(text)));
  }
  void add(kj::StringPtr key, const kj::Maybe<kj::StringPtr>& value) {
    KJ_IF_MAYBE (text, value) add(key, *text);
  }
  void addList(kj::StringPtr key, kj::ArrayPtr<const kj::String> values) {
    if (values.size() == 0) return;
    auto texts = KJ_MAP(value, values) {
      return kj::str('"', value, '"');
    };
    lines.add(kj::str("  \"", key, "\": [", kj::strArray(texts, ", "), "]"));
  }
  kj::String text() const { return kj::str("{\n", kj::strArray(lines, ",\n"), "\n}\n"); }

 private:
  kj::Vector<kj::String> lines;
};

// What is copied into the bundle, and the guest.cfg that names it.
struct Contents {
  struct File {
    kj::StringPtr what;
    kj::StringPtr from;
    kj::String name;
  };
  kj::Vector<File> files;
  kj::String cfg;
};

// Throws for what no guest can have, before anything is copied.
Contents contentsFor(const Wanted& wanted) {
  Contents contents;
  CfgText cfg;
  auto take = [&](kj::StringPtr what, kj::StringPtr key, const kj::Maybe<kj::StringPtr>& from) {
    KJ_IF_MAYBE (file, from) {
      contents.files.add(Contents::File{what, *file, kj::heapString(what)});
      cfg.add(key, kj::str("/", what));
    }
  };
  take("kernel", "linux", wanted.kernel);
  take("kernel", "zircon", wanted.zircon);
  take("initrd", "ramdisk", wanted.initrd);
  kj::Vector<kj::String> disks;
  for (auto i : kj::indices(wanted.disks)) {
    auto name = kj::str("disk-", i, ".img");
    disks.add(kj::str("/", name, ",fdio,rw"));
    contents.files.add(Contents::File{"disk"_kj, wanted.disks[i], kj::mv(name)});
  }
  cfg.addList("block", disks);
  cfg.add("cmdline", wanted.cmdline);
  cfg.add("memory", wanted.memory);
  cfg.add("cpus", wanted.cpus);
  cfg.add("virtio-gpu", "false"_kj);
  contents.cfg = cfg.text();

  capnp::MallocMessageBuilder launch;
  realm::GuestDraft draft(launch.initRoot<realm::GuestConfig>().asReader());
  draft.merge(contents.cfg, "guest.cfg");
  draft.finish(realm::GuestDraft::Host{1, false, false});
  return contents;
}

void copyGuest(const Contents& contents, NewBundle& bundle) {
  for (auto& file : contents.files)
    bundle.copy(file.what, file.from, file.name);
  bundle.write("guest.cfg", contents.cfg);
}

void checkWords(const Wanted& wanted) {
  int kinds = wanted.fromDebian + (wanted.kernel != nullptr) + (wanted.zircon != nullptr);
  if (kinds != 1) badWords("needs exactly one of --from-debian, --kernel FILE and --zircon FILE");
  bool saysMore = wanted.initrd != nullptr || wanted.cmdline != nullptr ||
                  wanted.memory != nullptr || wanted.cpus != nullptr || wanted.disks.size() > 0;
  if (wanted.fromDebian && saysMore) {
    badWords("--from-debian takes no further options; edit guest.cfg of the bundle");
  }
}

ExitCode create(kj::ArrayPtr<const kj::StringPtr> words) {
  Wanted wanted;
  CommandLine line("guest create", "Makes a guest's bundle in the new folder DIR.", "DIR",
                   "troupe guest create guests/web --from-debian");
  addOptions(line, wanted);
  auto arguments = line.parse(words, 1);
  KJ_IF_MAYBE (given, arguments) {
    if (given->size() != 1) badWords("needs the folder DIR");
    checkWords(wanted);
    Contents contents;
    if (!wanted.fromDebian) contents = contentsFor(wanted);
    NewBundle bundle((*given)[0]);
    if (wanted.fromDebian) {
      makeDebianGuest(bundle.path());
    } else {
      copyGuest(contents, bundle);
    }
    bundle.keep();
    printOut(line.json() ? kj::str(JsonLine().text("bundle", bundle.path()).render(), "\n")
                         : kj::str(bundle.path(), "\n"));
  } else {
    printOut(line.help());
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode guestCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  constexpr kj::StringPtr HELP =
      "usage: troupe guest create DIR ...\n"
      "Bundles that guests are launched from.\n\n"
      "`troupe guest create --help` tells more.\n"_kj;
  if (words.size() > 0 && words[0] == "create") return create(words.slice(1, words.size()));
  if (words.size() > 0 && (words[0] == "--help" || words[0] == "-h" || words[0] == "help")) {
    printOut(HELP);
    return ExitCode::POWERED_OFF;
  }
  UserError(codes::ARGUMENTS,
            words.size() == 0
                ? kj::str("troupe guest needs a verb; the verb is create")
                : kj::str("troupe guest has no verb ", quote(words[0]), "; the verb is create"))
      .advice("see", "troupe guest --help")
      .raise();
}

}  // namespace troupe
