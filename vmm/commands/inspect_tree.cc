#include "vmm/commands/inspect_tree.h"

#include <kj/debug.h>

#include "vmm/words/json_report.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

using capnp::JsonValue;

constexpr size_t LONGEST_TEXT = 400;
constexpr kj::StringPtr BRANCHES[] = {"status"_kj, "jail"_kj, "graph"_kj, "load"_kj, "balloon"_kj};
// By which of its fields an element of a list is known.
constexpr kj::StringPtr KEYS[] = {"name"_kj, "layer"_kj, "index"_kj};

void makeSafe(JsonValue::Builder value) {
  switch (value.which()) {
    case JsonValue::STRING:
      value.setString(escape(value.getString(), LONGEST_TEXT));
      break;
    case JsonValue::ARRAY:
      for (auto element : value.getArray())
        makeSafe(element);
      break;
    case JsonValue::OBJECT:
      for (auto field : value.getObject())
        makeSafe(field.getValue());
      break;
    default:
      break;
  }
}

kj::String textOf(JsonValue::Reader value) {
  switch (value.which()) {
    case JsonValue::STRING:
      return kj::str(value.getString());
    case JsonValue::BOOLEAN:
      return kj::str(value.getBoolean());
    case JsonValue::NUMBER:
      return kj::str(value.getNumber());
    case JsonValue::ARRAY:
    case JsonValue::OBJECT:
      return kj::str("-");  // with nothing in it
    default:
      return kj::str("null");
  }
}

kj::Maybe<JsonValue::Reader> fieldOf(JsonValue::Reader object, kj::StringPtr name) {
  for (auto field : object.getObject()) {
    if (field.getName() == name) return field.getValue();
  }
  return nullptr;
}

// What an element is called: by its key if it has one that nobody before it has, or else its
// number.
kj::String nameOf(capnp::List<JsonValue>::Reader list, kj::uint index) {
  if (!list[index].isObject()) return kj::str(index);
  for (auto key : KEYS) {
    KJ_IF_MAYBE (value, fieldOf(list[index], key)) {
      auto name = textOf(*value);
      if (name.size() == 0) continue;
      for (kj::uint i = 0; i < index; i++) {
        KJ_IF_MAYBE (other, fieldOf(list[i], key)) {
          if (textOf(*other) == name) return kj::str(index);
        }
      }
      return name;
    }
  }
  return kj::str(index);
}

bool hasMembers(JsonValue::Reader value) {
  return (value.isObject() && value.getObject().size() > 0) ||
         (value.isArray() && value.getArray().size() > 0);
}

kj::Vector<kj::String> namesIn(JsonValue::Reader value) {
  kj::Vector<kj::String> names;
  if (value.isObject()) {
    for (auto field : value.getObject())
      names.add(kj::str(field.getName()));
  } else if (value.isArray()) {
    for (kj::uint i = 0; i < value.getArray().size(); i++)
      names.add(nameOf(value.getArray(), i));
  }
  return names;
}

kj::Maybe<JsonValue::Reader> memberOf(JsonValue::Reader value, kj::StringPtr name) {
  if (value.isObject()) return fieldOf(value, name);
  if (!value.isArray()) return nullptr;
  auto list = value.getArray();
  for (kj::uint i = 0; i < list.size(); i++) {
    if (nameOf(list, i) == name) return list[i];
  }
  KJ_IF_MAYBE (index, parseNumber(name, UINT32_MAX)) {
    if (*index < list.size()) return list[kj::uint(*index)];
  }
  return nullptr;
}

[[noreturn]] void leadsNowhere(kj::StringPtr path, kj::StringPtr word,
                               kj::ArrayPtr<const kj::StringPtr> names) {
  constexpr size_t MOST_SHOWN = 24;
  auto shown = names.slice(0, kj::min(names.size(), MOST_SHOWN));
  auto choices = names.size() == 0 ? kj::str("; there is nothing below what stands before it")
                                   : kj::str("; there are ", kj::strArray(shown, ", "),
                                             names.size() > MOST_SHOWN ? ", …" : "");
  UserError(codes::NOT_A_CHOICE, kj::str("there is no ", quote(word), " on the way ", quote(path),
                                         didYouMean(word, names), choices))
      .raise();
}

JsonValue::Reader follow(JsonValue::Reader from, kj::StringPtr path) {
  kj::StringPtr left = path;
  while (left.size() > 0) {
    size_t end = left.findFirst('/').orDefault(left.size());
    auto word = kj::heapString(left.slice(0, end));
    left = left.slice(kj::min(end + 1, left.size()));
    if (word.size() == 0) continue;
    KJ_IF_MAYBE (next, memberOf(from, word)) {
      from = *next;
    } else {
      auto names = namesIn(from);
      auto choices = KJ_MAP(name, names)->kj::StringPtr {
        return name;
      };
      leadsNowhere(path, word, choices);
    }
  }
  return from;
}

void tellEach(JsonValue::Reader value, kj::StringPtr way,
              kj::Function<void(kj::StringPtr, kj::StringPtr)>& tell) {
  if (!hasMembers(value)) return tell(way, textOf(value));
  auto prefix = way.size() == 0 ? kj::str() : kj::str(way, "/");
  if (value.isObject()) {
    for (auto field : value.getObject())
      tellEach(field.getValue(), kj::str(prefix, field.getName()), tell);
    return;
  }
  auto list = value.getArray();
  for (kj::uint i = 0; i < list.size(); i++)
    tellEach(list[i], kj::str(prefix, nameOf(list, i)), tell);
}

// The branches that are wanted: of those the path begins with, one.
kj::Array<kj::StringPtr> wantedBranches(kj::StringPtr path) {
  kj::StringPtr left = path;
  while (left.startsWith("/"))
    left = left.slice(1);
  if (left.size() == 0) return kj::heapArray<kj::StringPtr>(BRANCHES);
  auto first = kj::heapString(left.slice(0, left.findFirst('/').orDefault(left.size())));
  for (auto branch : BRANCHES) {
    if (branch == first) return kj::heapArray<kj::StringPtr>({branch});
  }
  leadsNowhere(path, first, BRANCHES);
}

}  // namespace

InspectTree::InspectTree(ControlClient& client, kj::StringPtr path) {
  auto branches = wantedBranches(path);
  bool isAll = branches.size() > 1;
  auto vm = client.vm();
  auto fields = whole.initRoot<JsonValue>().initObject(branches.size());
  kj::uint next = 0;
  auto put = [&](kj::StringPtr name, auto&& value) {
    auto field = fields[next++];
    field.setName(name);
    encodeReport(value, field.initValue());
  };
  for (auto branch : branches) {
    if (branch == "status") {
      client.await(vm.statusRequest().send().then(
          [&](auto&& answer) { put("status", answer.getStatus()); }));
    } else if (branch == "jail") {
      client.await(vm.inspectJailsRequest().send().then(
          [&](auto&& answer) { put("jail", answer.getJails()); }));
    } else if (branch == "graph") {
      client.await(
          vm.graphRequest().send().then([&](auto&& answer) { put("graph", answer.getGraph()); }));
    } else if (branch == "load") {
      client.await(
          vm.loadRequest().send().then([&](auto&& answer) { put("load", answer.getLoad()); }));
    } else {
      auto request = vm.balloonRequest();
      request.initRequest().setLook();
      client.await(request.send().then(
          [&](auto&& answer) { put("balloon", answer.getStatus()); },
          [&](kj::Exception&& failure) {
            auto why = wrapActorError(failure, codes::INTERNAL, "the balloon was not asked");
            // Of all there is, a balloon may be missing.
            if (!isAll || !why.render().startsWith(codes::NO_BALLOON.text)) {
              kj::throwFatalException(why.toException());
            }
            auto field = fields[next++];
            field.setName("balloon");
            field.initValue().setNull();
          }));
    }
  }
  makeSafe(whole.getRoot<JsonValue>());
  codec.setPrettyPrint(true);
  at = follow(whole.getRoot<JsonValue>().asReader(), path);
}

kj::String InspectTree::json() const {
  return codec.encodeRaw(at);
}

kj::Maybe<kj::String> InspectTree::single() const {
  if (hasMembers(at)) return nullptr;
  return textOf(at);
}

void InspectTree::each(kj::FunctionParam<void(kj::StringPtr, kj::StringPtr)> tell) const {
  kj::Function<void(kj::StringPtr, kj::StringPtr)> one =
      [&](kj::StringPtr path, kj::StringPtr value) { tell(path, value); };
  tellEach(at, "", one);
}

}  // namespace troupe
