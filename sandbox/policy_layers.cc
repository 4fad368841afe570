#include "sandbox/policy_layers.h"

#include "sandbox/layer_sources.h"
#include "sandbox/resource_layers.h"

namespace troupe::sandbox {
namespace {

constexpr ProfileLayer REQUIRED = {ProfileLayer::REQUIRED, 0};

constexpr ProfileLayer since(uint32_t major, uint32_t minor) {
  return {ProfileLayer::REQUIRED_SINCE, kernelVersion(major, minor)};
}

class LayerReader final: LayerSources {
 public:
  LayerReader(const std::vector<std::unique_ptr<SourceFile>>& sources,
              const std::vector<PolicyFd>& fds,
              const std::function<void(const ProfileError&)>& report, PolicyLayers& layers)
      : LayerSources(sources, fds, report, layers.minimumKernel), layers(layers) {}

  void read() {
    attempt([&] { readMinimumKernel(); });
    attempt([&] { readNamespaces(); });
    attempt([&] { readRoot(); });
    attempt([&] { readLandlock(); });
    attempt([&] { readCapabilities(); });
    attempt([&] { readLayer("mdwe", layers.mdwe); });
    attempt([&] { readLayer("executable_seals", layers.executableSeals); });
    attempt([&] { readHelper(); });
  }

 private:
  void readMinimumKernel() {
    const SourceFile* file = speaker("minimum_kernel");
    if (file == nullptr) return;
    SourceLocation where = place(*file, "minimum_kernel");
    auto version = parseVersion(file->profile.minimum_kernel());
    if (!version) {
      throw ProfileError(where, "`minimum_kernel` is \"" + file->profile.minimum_kernel() +
                                    "\"; it is a version like \"6.1\"");
    }
    layers.minimumKernel = *version;
    layers.minimumKernelAt = where;
  }

  void readNamespaces() {
    const SourceFile* file = speaker("namespaces");
    if (file == nullptr) return;
    std::array<PolicyLayer, NAMESPACE_COUNT> read = {};
    for (int i = 0; i < file->profile.namespaces_size(); i++) {
      const policy::Namespaces& group = file->profile.namespaces(i);
      const Locations* tree = within(*file, "namespaces", i);
      if (group.kind_size() == 0) {
        throw ProfileError(place(*file, "namespaces", i), "`namespaces` lists each `kind`: USER");
      }
      ProfileLayer layer = needOf(*file, tree, group);
      for (int k = 0; k < group.kind_size(); k++) {
        SourceLocation where = locate(*file, tree, group, "kind", k);
        if (group.kind(k) == policy::Namespaces::UNSPECIFIED) {
          throw ProfileError(where,
                             "UNSPECIFIED is no namespace; they are USER, PID, NET, MOUNT, "
                             "IPC, UTS and CGROUP");
        }
        std::string name = policy::Namespaces::Kind_Name(group.kind(k));
        PolicyLayer& slot = read[group.kind(k) - 1];
        if (slot.layer.wanted()) throw ProfileError(where, name + " is given twice; drop one");
        bool carries =
            group.kind(k) == policy::Namespaces::USER || group.kind(k) == policy::Namespaces::MOUNT;
        if (carries && layer.need != ProfileLayer::REQUIRED) {
          throw ProfileError(where, name +
                                        " cannot be optional: the empty root is built in the "
                                        "actor's own user and mount namespaces");
        }
        slot = {layer, where};
      }
    }
    for (auto kind : {NamespaceKind::USER, NamespaceKind::MOUNT}) {
      if (read[size_t(kind)].layer.wanted()) continue;
      throw ProfileError(place(*file, "namespaces"),
                         "USER and MOUNT are always among the namespaces: the empty root is built "
                         "in them; add both");
    }
    layers.namespaces = read;
  }

  void readRoot() {
    const SourceFile* file = speaker("root");
    if (file != nullptr) layers.root = place(*file, "root");
  }

  void readLandlock() {
    const SourceFile* file = speaker("landlock");
    if (file == nullptr) return;
    std::array<PolicyLayer, LANDLOCK_ACCESS_COUNT> read = {};
    for (int i = 0; i < file->profile.landlock_size(); i++) {
      const policy::Landlock& group = file->profile.landlock(i);
      const Locations* tree = within(*file, "landlock", i);
      if (group.deny_size() == 0) {
        throw ProfileError(place(*file, "landlock", i),
                           "`landlock` lists what it is to `deny`: FILES");
      }
      ProfileLayer layer = needOf(*file, tree, group);
      for (int k = 0; k < group.deny_size(); k++) {
        SourceLocation where = locate(*file, tree, group, "deny", k);
        if (group.deny(k) == policy::Landlock::UNSPECIFIED) {
          throw ProfileError(where,
                             "UNSPECIFIED is nothing to deny; there are FILES, TRUNCATE, "
                             "TCP, DEVICE_IOCTLS, ABSTRACT_SOCKETS and SIGNALS");
        }
        PolicyLayer& slot = read[group.deny(k) - 1];
        if (slot.layer.wanted()) {
          throw ProfileError(
              where, policy::Landlock::Access_Name(group.deny(k)) + " is given twice; drop one");
        }
        slot = {layer, where};
      }
    }
    layers.landlock = read;
  }

  void readCapabilities() {
    const SourceFile* file = speaker("capability");
    if (file == nullptr) return;
    for (int i = 0; i < file->profile.capability_size(); i++) {
      const policy::Capability& capability = file->profile.capability(i);
      const Locations* tree = within(*file, "capability", i);
      SourceLocation where = locate(*file, tree, capability, "name");
      uint64_t number =
          constant("CAP_", capability.name(), "capability", where, place(*file, "capability", i));
      if (capability.reason().empty()) {
        throw ProfileError(place(*file, "capability", i),
                           "the capability " + capability.name() +
                               " has no `reason`; say who needs it, and for what");
      }
      for (const PolicyCapability& other : layers.capabilities) {
        if (other.number == number) {
          throw ProfileError(where, capability.name() + " is given twice; drop one");
        }
      }
      layers.capabilities.push_back(
          {uint32_t(number), capability.name(), capability.reason(), where});
    }
  }

  void readLayer(const std::string& name, PolicyLayer& result) {
    const SourceFile* file = speaker(name);
    if (file == nullptr) return;
    const policy::Layer& layer =
        name == "mdwe" ? file->profile.mdwe() : file->profile.executable_seals();
    const Locations* tree = within(*file, name);
    if (!layer.off().empty() && !layer.optional().empty()) {
      throw ProfileError(locate(*file, tree, layer, "off"),
                         "a layer that is `off` has no `optional`; drop one");
    }
    bool off = !layer.off().empty();
    ProfileLayer wanted = off ? ProfileLayer{ProfileLayer::OFF, 0} : needOf(*file, tree, layer);
    result = {wanted, place(*file, name)};
  }

  void readHelper() {
    const SourceFile* file = speaker("helper");
    if (file == nullptr) return;
    const policy::Helper& helper = file->profile.helper();
    const Locations* tree = within(*file, "helper");
    layers.helper.is = true;
    layers.helper.where = place(*file, "helper");
    layers.helper.reason = helper.reason();
    if (helper.reason().empty()) {
      throw ProfileError(layers.helper.where,
                         "`helper` has no `reason`; say which program it is, and for what");
    }
    for (int i = 0; i < helper.root_size(); i++)
      addRootEntry(helper.root(i), locate(*file, tree, helper, "root", i));
  }

  // Paths go into a root that is made by their words: each is plain and absolute.
  void addRootEntry(const policy::Helper::Entry& entry, const SourceLocation& where) {
    const std::string& path = entry.path();
    bool plain = path.size() > 1 && path[0] == '/' && path.back() != '/' &&
                 path.find("//") == std::string::npos && (path + "/").find("/./") == path.npos &&
                 (path + "/").find("/../") == std::string::npos;
    if (entry.kind() == policy::Helper::UNSPECIFIED) {
      throw ProfileError(where, "an entry of `root` has a `kind`: FILE, FOLDER or LINK");
    }
    if (!plain) {
      throw ProfileError(where, "\"" + path +
                                    "\" is no path for `root`; one is absolute and has no "
                                    "\"//\", \".\" or \"..\": \"/lib64/ld-linux-x86-64.so.2\"");
    }
    if ((entry.kind() == policy::Helper::LINK) == entry.target().empty()) {
      throw ProfileError(where, "`target` goes with LINK, and LINK has one");
    }
    if (entry.optional() && entry.kind() != policy::Helper::FILE) {
      throw ProfileError(where, "`optional` goes with FILE: what is made is always there");
    }
    for (const PolicyRootEntry& other : layers.helper.root) {
      if (other.path == path) throw ProfileError(where, path + " is given twice; drop one");
    }
    layers.helper.root.push_back(
        {ProfileRootEntry::Kind(entry.kind() - 1), path, entry.target(), entry.optional(), where});
  }

  PolicyLayers& layers;
};

}  // namespace

PolicyLayers::PolicyLayers()
    : landlock{{{REQUIRED, {}},
                {since(6, 2), {}},
                {since(6, 7), {}},
                {since(6, 10), {}},
                {since(6, 12), {}},
                {since(6, 12), {}}}},
      mdwe{since(6, 3), {}},
      executableSeals{since(6, 3), {}},
      minimumKernel(kernelVersion(6, 1)) {
  namespaces.fill({REQUIRED, {}});
}

PolicyLayers readLayers(const std::vector<std::unique_ptr<SourceFile>>& sources,
                        const std::vector<PolicyFd>& fds,
                        const std::function<void(const ProfileError&)>& report) {
  PolicyLayers layers;
  LayerReader(sources, fds, report, layers).read();
  readResourceLayers(sources, fds, report, layers);
  return layers;
}

}  // namespace troupe::sandbox
