#include "vmm/words/option_parts.h"

#include <kj/vector.h>

#include "vmm/words/quote.h"
#include "vmm/words/split.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

const OptionPart& partNamed(const OptionForm& form, kj::StringPtr name, kj::StringPtr said,
                            kj::StringPtr text) {
  kj::Vector<kj::StringPtr> names;
  for (auto& part : form.parts) {
    if (part.name == name) return part;
    names.add(part.name);
  }
  auto wrong = said.size() == 0
                   ? kj::str("there is nothing between two commas, or before or behind one")
                   : kj::str("unknown part ", quote(said), didYouMean(name, names));
  UserError(form.code, kj::str(form.name, " ", quote(text), ": ", wrong, "; ", form.rule)).raise();
}

}  // namespace

kj::Array<SaidPart> readParts(const OptionForm& form, kj::StringPtr text) {
  kj::Vector<SaidPart> said;
  for (auto& word : splitAtCommas(text, true)) {
    auto name = kj::heapString(word);
    kj::Maybe<kj::String> value;
    KJ_IF_MAYBE (equals, word.findFirst('=')) {
      name = kj::heapString(word.begin(), *equals);
      value = kj::heapString(word.slice(*equals + 1));
    }
    const OptionPart& part = partNamed(form, name, word, text);
    for (auto& earlier : said) {
      if (part.repeats || earlier.name != part.name) continue;
      UserError(codes::GIVEN_TWICE,
                kj::str(form.name, " ", quote(text), ": ", quote(name), " is given twice"))
          .raise();
    }
    bool empty = value.map([](const kj::String& text) { return text.size() == 0; }).orDefault(true);
    if (part.hasValue ? empty : value != nullptr) {
      UserError(form.code, kj::str(form.name, " ", quote(text), ": ", quote(name),
                                   part.hasValue ? " needs a value" : " takes no value"))
          .raise();
    }
    said.add(SaidPart{part.name, kj::mv(value).orDefault(kj::String())});
  }
  return said.releaseAsArray();
}

}  // namespace troupe
