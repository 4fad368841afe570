#include "vmm/completion.h"

#include <kj/vector.h>

#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

kj::String namesOf(kj::ArrayPtr<const CompletedVerb> verbs, Completes kind) {
  kj::Vector<kj::StringPtr> names;
  for (auto& verb : verbs) {
    if (verb.arguments == kind) names.add(verb.name);
  }
  return kj::strArray(names, "|");
}

kj::String bashScript(kj::ArrayPtr<const CompletedVerb> verbs) {
  auto names = KJ_MAP(verb, verbs)->kj::StringPtr {
    return verb.name;
  };
  return kj::str(R"sh(# source <(troupe completion bash)
_troupe() {
  local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W ")sh",
                 kj::strArray(names, " "), R"sh(" -- "$cur"))
    return
  fi
  case $cur in
    -*)
      COMPREPLY=($(compgen -W "$(troupe "$verb" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')" -- "$cur"))
      return ;;
  esac
  case $verb in
    )sh",
                 namesOf(verbs, Completes::VMS),
                 R"sh() COMPREPLY=($(compgen -W "$(troupe list --names 2>/dev/null)" -- "$cur")) ;;
    )sh",
                 namesOf(verbs, Completes::FILES), R"sh() COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _troupe troupe
)sh");
}

// In single quotes of a shell.
kj::String quoted(kj::StringPtr text) {
  kj::Vector<char> result;
  for (char c : text) {
    if (c == '\'') {
      result.addAll("'\\''"_kj);
    } else {
      result.add(c);
    }
  }
  return kj::str("'", result, "'");
}

kj::String zshScript(kj::ArrayPtr<const CompletedVerb> verbs) {
  auto described = KJ_MAP(verb, verbs) {
    return quoted(kj::str(verb.name, ":", verb.help));
  };
  return kj::str(R"sh(#compdef troupe
# troupe completion zsh > some folder of $fpath/_troupe
_troupe() {
  local -a verbs=(
    )sh",
                 kj::strArray(described, "\n    "), R"sh(
  )
  if (( CURRENT == 2 )); then
    _describe command verbs
    return
  fi
  if [[ $words[CURRENT] == -* ]]; then
    compadd -- ${(f)"$(troupe $words[2] --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')"}
    return
  fi
  case $words[2] in
    )sh",
                 namesOf(verbs, Completes::VMS),
                 R"sh() compadd -- ${(f)"$(troupe list --names 2>/dev/null)"} ;;
    )sh",
                 namesOf(verbs, Completes::FILES), R"sh() _files ;;
  esac
}
compdef _troupe troupe
)sh");
}

}  // namespace

kj::String completionScript(kj::StringPtr shell, kj::ArrayPtr<const CompletedVerb> verbs) {
  if (shell == "bash") return bashScript(verbs);
  if (shell == "zsh") return zshScript(verbs);
  UserError(codes::NOT_A_CHOICE,
            kj::str("there is no completion for ", quote(shell), "; the shells are bash and zsh"))
      .raise();
}

}  // namespace troupe
