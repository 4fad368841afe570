#include "vmm/words/user_error.h"

#include <errno.h>
#include <kj/vector.h>
#include <string.h>

#include "vmm/words/quote.h"

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

// What a system call wants when it fails with an answer that is no mistake of anybody's.
struct Resource {
  int error;
  kj::StringPtr what;
  kj::StringPtr see;
};
constexpr Resource RESOURCES[] = {
    {EMFILE, "file descriptors"_kj, "ulimit -n; ulimit -Hn"_kj},
    {ENFILE, "open files"_kj, "cat /proc/sys/fs/file-nr"_kj},
    {ENOMEM, "pages of memory"_kj, "free -h; ulimit -v"_kj},
    {ENOSPC, "blocks on a file system"_kj, "df -h"_kj},
    {EDQUOT, "blocks of its quota"_kj, "quota"_kj},
};

// None unless `description` is what KJ_SYSCALL or KJ_FAIL_SYSCALL makes of such an answer.
kj::Maybe<const Resource&> whatRanOut(kj::StringPtr description) {
  if (description.startsWith("remote exception: ")) return nullptr;  // another process's
  for (auto& resource : RESOURCES) {
    auto answer = kj::str(": ", strerrordesc_np(resource.error));
    if (description.endsWith(answer) || strstr(description.cStr(), kj::str(answer, ";").cStr())) {
      return resource;
    }
  }
  return nullptr;
}

kj::StringPtr withoutRpcPrefix(kj::StringPtr text) {
  constexpr kj::StringPtr PREFIX = "remote exception: "_kj;
  while (text.startsWith(PREFIX))
    text = text.slice(PREFIX.size());
  return text;
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

kj::StringPtr withoutCondition(kj::StringPtr text) {
  if (!text.startsWith("expected ")) return text;
  const char* code = strstr(text.cStr(), "; TRP-");
  const char* end = code != nullptr ? code : strstr(text.cStr(), "; ");
  if (end == nullptr) return text;
  auto condition = kj::heapString(text.begin(), end - text.begin());
  bool isOne = code != nullptr;
  for (const char* sign : {"==", "!=", ">=", "<=", " < ", " > ", "()", "d !"})
    isOne = isOne || strstr(condition.cStr(), sign) != nullptr;
  return isOne ? text.slice(end + 2 - text.begin()) : text;
}

// "cannot be read; strerror(-error) = no space" without the expression.
kj::String withoutExpression(kj::StringPtr text) {
  constexpr kj::StringPtr BEGINNING = "; strerror("_kj, END = ") = "_kj;
  const char* begin = strstr(text.cStr(), BEGINNING.cStr());
  const char* end = begin == nullptr ? nullptr : strstr(begin, END.cStr());
  if (end == nullptr) return kj::heapString(text);
  return kj::str(text.slice(0, begin - text.begin()), ": ", end + END.size());
}

kj::String hostileReason(const kj::Exception& exception) {
  auto text = withoutRpcPrefix(exception.getDescription());
  size_t code = codeLength(text.cStr());
  if (code > 0) {
    text = text.slice(code);
    while (text.startsWith(":") || text.startsWith(" "))
      text = text.slice(1);
  }
  return text.size() == 0 ? kj::str("it gave no reason")
                          : escape(withoutExpression(withoutCondition(text)), LONGEST_REASON);
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

kj::Exception passedOn(const kj::Exception& exception, const codes::ErrorCode& fallback,
                       kj::StringPtr message) {
  constexpr size_t MOST_LINES = 40;
  constexpr size_t LONGEST_LINE = 600;
  auto text = withoutRpcPrefix(exception.getDescription());
  if (codeLength(text.cStr()) == 0) {
    return wrapActorError(exception, fallback, message).toException(exception.getType());
  }
  kj::Vector<kj::String> lines;
  while (text.size() > 0 && lines.size() < MOST_LINES) {
    size_t end = text.findFirst('\n').orDefault(text.size());
    lines.add(escape(text.slice(0, end), LONGEST_LINE));
    text = text.slice(kj::min(end + 1, text.size()));
  }
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::strArray(lines, "\n"));
}

absl::Status toStatus(const kj::Exception& exception) {
  // Words of another actor still carry RPC's prefix here, so they are never taken for our own.
  auto text = withoutCondition(exception.getDescription());
  size_t length = codeLength(text.cStr());
  if (length == 0) {
    KJ_IF_MAYBE (what, whatRanOut(exception.getDescription())) {
      UserError error(codes::RUN_OUT,
                      kj::str("troupe needs ", what->what, ", and there are no more"));
      error.cause(escape(exception.getDescription(), LONGEST_REASON)).advice("see", what->see);
      auto rendered = error.render();
      return absl::Status(statusCodeOf(codes::RUN_OUT.exit), rendered.cStr());
    }
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
