#include "vmm/cli/completion.h"

#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// The pattern of a `case` for the verbs that have `kind`.
kj::String namesOf(kj::ArrayPtr<const CompletedVerb> verbs, Completes kind) {
  kj::Vector<kj::StringPtr> names;
  for (auto& verb : verbs) {
    if (verb.arguments == kind) names.add(verb.name);
  }
  return kj::strArray(names, "|");
}

// A `case` that sets `first` for the verbs whose first argument is one of a few words.
kj::String firstWords(kj::ArrayPtr<const CompletedVerb> verbs) {
  kj::Vector<kj::String> lines;
  for (auto& verb : verbs) {
    if (verb.first.size() > 0) {
      lines.add(kj::str("    ", verb.name, ") first='", verb.first, "' ;;\n"));
    }
  }
  return kj::strArray(lines, "");
}

// Functions that both shells understand. They print what may be typed, a line each.
constexpr kj::StringPtr COMMON =
    R"sh(# What may follow an option whose value --help calls $1; $2 and on: how to call `troupe list`.
_troupe_values() {
  local value=$1
  shift
  case $value in
    R) "$@" --realms --names 2>/dev/null ;;
    VM) "$@" --names 2>/dev/null ;;
    *\|*) printf '%s\n' "$value" | tr '|' '\n' | sed 's/=.*/=/' | grep '^[a-z]' ;;
  esac
}
# What --help on standard input calls the value of option $1; nothing for an option without one.
_troupe_value_of() { sed -n "s/^  $1 \([^ ][^ ]*\).*/\1/p"; }
_troupe_options() { grep -oE '^  --[a-z][a-z-]*' | tr -d ' '; }
)sh"_kj;

kj::String bashScript(kj::ArrayPtr<const CompletedVerb> verbs) {
  auto names = KJ_MAP(verb, verbs)->kj::StringPtr {
    return verb.name;
  };
  return kj::str("# source <(troupe completion bash)\n", COMMON, R"sh(
# Offers the lines of standard input that begin with what is typed.
_troupe_offer() {
  local word
  while IFS= read -r word; do
    word=$(printf %q "$word")
    [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
  done
}
_troupe_offer_files() {
  local IFS=$'\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$cur"))
}
_troupe() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local verb=${COMP_WORDS[1]} first= value i
  local -a call=("${COMP_WORDS[0]}") list=("${COMP_WORDS[0]}" list)
  COMPREPLY=()
  # --realm=lab comes as three words.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if ((COMP_CWORD == 1)); then
    _troupe_offer < <(printf '%s\n' )sh",
                 kj::strArray(names, " "), R"sh()
    return
  fi
  case $verb in
)sh",
                 firstWords(verbs), R"sh(  esac
  if [[ -n $first ]] && ((COMP_CWORD == 2)) && [[ $cur != -* ]]; then
    _troupe_offer < <(printf '%s\n' "$first" | tr '|' '\n')
    return
  fi
  call+=("$verb")
  [[ -n $first ]] && ((COMP_CWORD > 2)) && call+=("${COMP_WORDS[2]}")
  for ((i = 2; i < COMP_CWORD - 1; i++)); do
    [[ ${COMP_WORDS[i]} == --socket ]] && list+=(--socket "${COMP_WORDS[i+1]}")
  done
  if [[ $prev == --* ]]; then
    value=$("${call[@]}" --help 2>/dev/null | _troupe_value_of "$prev")
    case $value in
      '') ;;
      *FILE*|*PATH*|DIR|DISK) _troupe_offer_files; return ;;
      *)
        _troupe_offer < <(_troupe_values "$value" "${list[@]}")
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        return ;;
    esac
  fi
  if [[ $cur == -* ]]; then
    _troupe_offer < <("${call[@]}" --help 2>/dev/null | _troupe_options)
    return
  fi
  case $verb in
    )sh",
                 namesOf(verbs, Completes::VMS),
                 R"sh() _troupe_offer < <(_troupe_values VM "${list[@]}") ;;
    )sh",
                 namesOf(verbs, Completes::FILES), R"sh() _troupe_offer_files ;;
  esac
}
complete -F _troupe troupe
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
  return kj::str("#compdef troupe\n# troupe completion zsh > some folder of $fpath/_troupe\n",
                 COMMON,
                 R"sh(
_troupe_offer() {
  local -a found=("${(@f)$(cat)}")
  [[ -n $found[1] ]] && compadd "$@" -a found
}
_troupe() {
  local verb=$words[2] prev=$words[CURRENT-1] first= value
  local -a call=($words[1] $verb) list=($words[1] list)
  integer i
  local -a verbs=(
    )sh",
                 kj::strArray(described, "\n    "), R"sh(
  )
  if (( CURRENT == 2 )); then
    _describe command verbs
    return
  fi
  case $verb in
)sh",
                 firstWords(verbs), R"sh(  esac
  if [[ -n $first && CURRENT -eq 3 && $words[3] != -* ]]; then
    print -l ${(s:|:)first} | _troupe_offer
    return
  fi
  [[ -n $first ]] && (( CURRENT > 3 )) && call+=($words[3])
  for (( i = 3; i < CURRENT - 1; i++ )); do
    [[ $words[i] == --socket ]] && list+=(--socket $words[i+1])
  done
  if [[ $words[CURRENT] == --*=* ]]; then
    prev=${words[CURRENT]%%=*}
    compset -P '*='
  fi
  if [[ $prev == --* ]]; then
    value=$($call --help 2>/dev/null | _troupe_value_of $prev)
    case $value in
      '') ;;
      *FILE*|*PATH*|DIR|DISK) _files; return ;;
      *) _troupe_values $value $list | _troupe_offer -S ''; return ;;
    esac
  fi
  if [[ $words[CURRENT] == -* ]]; then
    $call --help 2>/dev/null | _troupe_options | _troupe_offer
    return
  fi
  case $verb in
    )sh",
                 namesOf(verbs, Completes::VMS),
                 R"sh() _troupe_values VM $list | _troupe_offer ;;
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
