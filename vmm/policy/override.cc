#include "vmm/policy/override.h"

#include <exception>
#include <optional>

#include "sandbox/profile_overlay.h"

namespace troupe {

using sandbox::CataloguedActor;
using sandbox::describe;
using sandbox::Policy;
using sandbox::PolicyFd;
using sandbox::PolicyReading;
using sandbox::SourceLocation;

namespace {

class GivenTexts final: public sandbox::ProfileFiles {
 public:
  explicit GivenTexts(const std::map<std::string, std::string>& texts) : texts(texts) {}

  std::optional<std::string> read(const std::string& path) const override {
    auto found = texts.find(path);
    if (found == texts.end()) return std::nullopt;
    return found->second;
  }

 private:
  const std::map<std::string, std::string>& texts;
};

const PolicyFd* find(const std::vector<PolicyFd>& fds, const std::string& name) {
  for (const PolicyFd& fd : fds) {
    if (fd.name == name) return &fd;
  }
  return nullptr;
}

std::string text(const PolicyFd& fd) {
  std::string from = fd.handed ? "HANDED" : fd.made ? "MADE" : "PLACED";
  return "number " + std::to_string(fd.number) + ", count " + std::to_string(fd.count) + ", kind " +
         fd.kind + ", from " + from + (fd.optional ? ", optional" : "") +
         (fd.closed ? ", closed" : "");
}

std::string folderOf(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

class OverrideCompiler {
 public:
  OverrideCompiler(const std::string& folder, const std::map<std::string, std::string>& files,
                   const sandbox::ProfileFiles& builtIn, const std::vector<CataloguedActor>& actors)
      : folder(folder),
        files(files),
        builtIn(builtIn),
        actors(actors),
        given(files),
        overlay(given, folder, builtIn) {}

  Override compile() {
    for (const CataloguedActor& actor : actors) {
      if (files.count(actor.path) != 0) compileProfile(actor);
    }
    if (result.errors.empty()) refuseUnused();
    if (!result.errors.empty()) result.profiles.clear();
    return std::move(result);
  }

 private:
  void fail(const SourceLocation& where, const std::string& what) {
    result.errors.push_back(describe(where) + ": " + what);
  }

  SourceLocation beginning(const std::string& path) const { return {folder + "/" + path, 1, 1}; }

  void compileProfile(const CataloguedActor& actor) {
    PolicyReading reading = examinePolicy(overlay, actor.path);
    for (const auto& error : reading.errors)
      result.errors.push_back(error.what());
    if (!reading.errors.empty()) return;
    if (reading.policy.actor != actor.name) {
      return fail(beginning(actor.path), "is the profile of \"" + reading.policy.actor +
                                             "\", but lies where that of \"" + actor.name +
                                             "\" does");
    }
    requireTheActorsFds(actor, reading.policy);
    addCompiled(actor, std::move(reading.policy));
  }

  void requireTheActorsFds(const CataloguedActor& actor, const Policy& policy) {
    Policy original = readPolicy(builtIn, actor.path);
    const std::string whose = "; the fds of " + actor.name + " are those that its program knows";
    for (const PolicyFd& fd : policy.fds) {
      const PolicyFd* known = find(original.fds, fd.name);
      if (known == nullptr) {
        fail(fd.where, actor.name + " has no fd \"" + fd.name + "\"" + whose);
      } else if (text(fd) != text(*known)) {
        fail(fd.where,
             "fd \"" + fd.name + "\" has " + text(fd) + "; it must have " + text(*known) + whose);
      }
    }
    for (const PolicyFd& known : original.fds) {
      if (find(policy.fds, known.name) != nullptr) continue;
      fail(beginning(actor.path),
           "lacks the fd \"" + known.name + "\" (" + text(known) + ")" + whose);
    }
  }

  void addCompiled(const CataloguedActor& actor, Policy&& policy) {
    Override::Compiled compiled{actor.path, std::move(policy), {}};
    try {
      for (const auto& filter : compiled.policy.filters)
        compiled.programs.push_back(buildProgram(filter));
    } catch (const sandbox::ProfileError& error) {
      result.errors.push_back(error.what());
      return;
    } catch (const std::exception& error) {
      return fail(beginning(actor.path), error.what());
    }
    result.profiles.push_back(std::move(compiled));
  }

  // A file that nothing comes of is a mistake: somebody believes that it tightens a jail.
  void refuseUnused() {
    for (const auto& [path, content] : files) {
      if (overlay.used().count(path) != 0) continue;
      std::string all;
      std::optional<std::string> near;
      for (const CataloguedActor& actor : actors) {
        all += (all.empty() ? "" : ", ") + actor.path;
        if (!near && folderOf(actor.path) == folderOf(path)) near = actor.path;
      }
      fail(beginning(path), "is no actor's profile and included by none of this folder" +
                                (near ? "; did you mean " + *near + "?" : std::string()) +
                                "; the profiles are " + all);
    }
  }

  const std::string& folder;
  const std::map<std::string, std::string>& files;
  const sandbox::ProfileFiles& builtIn;
  const std::vector<CataloguedActor>& actors;
  GivenTexts given;
  sandbox::OverlaidFiles overlay;
  Override result;
};

}  // namespace

Override compileOverride(const std::string& folder, const std::map<std::string, std::string>& files,
                         const sandbox::ProfileFiles& builtIn,
                         const std::vector<CataloguedActor>& actors) {
  return OverrideCompiler(folder, files, builtIn, actors).compile();
}

}  // namespace troupe
