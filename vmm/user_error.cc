#include "vmm/user_error.h"

#include <kj/vector.h>
#include <string.h>

#include "vmm/quote.h"

namespace troupe {

namespace {

constexpr size_t CODE_PREFIX = 4;       // "TRP-"
constexpr size_t LONGEST_REASON = 600;  // of another process; several lines of a terminal

bool isLower(char c) {
  return c >= 'a' && c <= 'z';
}
bool isDigit(char c) {
  return c >= '0' && c <= '9';
}

// The length of the code at `text` ("TRP-area-NNN"), 0 if there is none.
size_t codeLength(const char* text) {
  if (strncmp(text, "TRP-", CODE_PREFIX) != 0) return 0;
  size_t i = CODE_PREFIX;
  while (isLower(text[i]))
    i++;
  size_t areaLength = i - CODE_PREFIX;
  if (areaLength < 2 || areaLength > 8 || text[i] != '-') return 0;
  for (size_t digit = 1; digit <= 3; digit++) {
    if (!isDigit(text[i + digit])) return 0;
  }
  return isDigit(text[i + 4]) ? 0 : i + 4;
}

bool sameText(const char* constant, kj::StringPtr text) {
  return text == constant;
}

kj::Maybe<ExitCode> exitOfCode(kj::StringPtr code) {
  for (auto& known : codes::ALL) {
    if (sameText(known.text, code)) return known.exit;
  }
  auto area = kj::str(code.slice(CODE_PREFIX).slice(0, code.size() - CODE_PREFIX - 4));
  for (auto& known : codes::AREAS) {
    if (sameText(known.area, area)) return known.exit;
  }
  return nullptr;
}

kj::StringPtr withoutRpcPrefix(kj::StringPtr text) {
  constexpr kj::StringPtr PREFIX = "remote exception: "_kj;
  while (text.startsWith(PREFIX))
    text = text.slice(PREFIX.size());
  return text;
}

// KJ_REQUIRE puts the condition in front of an error's text: "expected a == b; TRP-…".
kj::StringPtr withoutCondition(kj::StringPtr text) {
  if (!text.startsWith("expected ")) return text;
  const char* code = strstr(text.cStr(), "; TRP-");
  if (code == nullptr) return text;
  return text.slice(code + 2 - text.begin());
}

absl::StatusCode statusCodeOf(ExitCode exit) {
  switch (exit) {
    case ExitCode::USAGE:
      return absl::StatusCode::kInvalidArgument;
    case ExitCode::HOST:
      return absl::StatusCode::kFailedPrecondition;
    case ExitCode::JAIL:
      return absl::StatusCode::kPermissionDenied;
    case ExitCode::START:
    case ExitCode::DEVICE_LOST:
    case ExitCode::BROKER_FAILED:
      return absl::StatusCode::kUnavailable;
    case ExitCode::GUEST_RESET:
    case ExitCode::GUEST_CRASHED:
    case ExitCode::GUEST_PANICKED:
    case ExitCode::STOPPED:
      return absl::StatusCode::kAborted;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::StatusCode statusCodeOf(kj::Exception::Type type) {
  switch (type) {
    case kj::Exception::Type::OVERLOADED:
      return absl::StatusCode::kResourceExhausted;
    case kj::Exception::Type::DISCONNECTED:
      return absl::StatusCode::kUnavailable;
    case kj::Exception::Type::UNIMPLEMENTED:
      return absl::StatusCode::kUnimplemented;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

UserError::UserError(const codes::ErrorCode& code, kj::String message)
    : code(kj::heapString(code.text)), message(kj::mv(message)) {}

UserError& UserError::cause(kj::StringPtr text) {
  causes.add(escape(text, LONGEST_REASON));
  return *this;
}

UserError& UserError::advice(kj::StringPtr kind, kj::StringPtr text) {
  advices.add(kj::str(kind, ": ", text));
  return *this;
}

kj::String UserError::render() const {
  kj::Vector<kj::String> lines;
  lines.add(kj::str(code, ": ", message));
  uint number = 0;
  for (auto& cause : causes)
    lines.add(kj::str("  ", ++number, ". ", cause));
  for (auto& advice : advices)
    lines.add(kj::str("  ", advice));
  return kj::strArray(lines, "\n");
}

kj::Exception UserError::toException(kj::Exception::Type type) const {
  return kj::Exception(type, __FILE__, __LINE__, render());
}

void UserError::raise() const {
  kj::throwFatalException(toException());
}

kj::String hostileReason(const kj::Exception& exception) {
  auto text = withoutRpcPrefix(exception.getDescription());
  size_t code = codeLength(text.cStr());
  if (code > 0) {
    text = text.slice(code);
    while (text.startsWith(":") || text.startsWith(" "))
      text = text.slice(1);
  }
  return text.size() == 0 ? kj::str("it gave no reason") : escape(text, LONGEST_REASON);
}

UserError wrapActorError(const kj::Exception& exception, const codes::ErrorCode& fallback,
                         kj::StringPtr message) {
  codes::ErrorCode code = fallback;
  kj::String said;
  auto text = withoutRpcPrefix(exception.getDescription());
  size_t length = codeLength(text.cStr());
  if (length > 0) {
    said = kj::heapString(text.begin(), length);
    KJ_IF_MAYBE (exit, exitOfCode(said)) {
      code = {said.cStr(), *exit};
    }
  }
  UserError error(code, kj::heapString(message));
  error.cause(hostileReason(exception));
  return error;
}

absl::Status toStatus(const kj::Exception& exception) {
  // Words of another actor still carry RPC's prefix here, so they are never taken for our own.
  auto text = withoutCondition(exception.getDescription());
  size_t length = codeLength(text.cStr());
  if (length == 0) {
    UserError error(codes::INTERNAL, kj::str("troupe came upon something it did not expect"));
    error.cause(escape(exception.getDescription(), LONGEST_REASON));
    error.cause(kj::str("in ", exception.getFile(), ", line ", exception.getLine()));
    auto rendered = error.render();
    return absl::Status(statusCodeOf(exception.getType()), rendered.cStr());
  }
  auto code = kj::heapString(text.begin(), length);
  KJ_IF_MAYBE (exit, exitOfCode(code)) {
    return absl::Status(statusCodeOf(*exit), text.cStr());
  }
  return absl::Status(absl::StatusCode::kInternal, text.cStr());
}

ExitCode exitCodeOf(const absl::Status& status) {
  if (status.ok()) return ExitCode::POWERED_OFF;
  auto text = kj::heapString(status.message().data(), status.message().size());
  size_t length = codeLength(text.cStr());
  if (length == 0) return ExitCode::INTERNAL;
  KJ_IF_MAYBE (exit, exitOfCode(kj::heapString(text.begin(), length))) {
    return *exit;
  }
  return ExitCode::INTERNAL;
}

}  // namespace troupe
