#include "vmm/front/metrics_session.h"

#include <kj/debug.h>
#include <string.h>

#include "tests/fuzz/planted.h"
#include "vmm/observe/metrics_text.h"

namespace troupe::front {

namespace {

constexpr kj::StringPtr PLAIN = "text/plain; charset=utf-8"_kj;
constexpr kj::StringPtr METRICS = "text/plain; version=0.0.4; charset=utf-8"_kj;

// What the first line asks for.
enum class Wish { METRICS, ONLY_HEADERS, ELSEWHERE, OTHER_METHOD, NONSENSE };

Wish wishIn(kj::StringPtr line) {
  auto tail = [&](kj::StringPtr method) -> kj::Maybe<kj::StringPtr> {
    if (!line.startsWith(method)) return nullptr;
    return line.slice(method.size());
  };
  auto target = [](kj::StringPtr rest, Wish there) {
    KJ_IF_MAYBE (end, rest.findFirst(' ')) {
      if (!rest.slice(*end + 1).startsWith("HTTP/1.")) return Wish::NONSENSE;
      auto path = rest.slice(0, *end);
      auto is = [&](kj::StringPtr name) {
        return path.size() == name.size() && memcmp(path.begin(), name.begin(), name.size()) == 0;
      };
      return is("/metrics") || is("/") ? there : Wish::ELSEWHERE;
    }
    return Wish::NONSENSE;
  };
  KJ_IF_MAYBE (rest, tail("GET ")) {
    return target(*rest, Wish::METRICS);
  }
  KJ_IF_MAYBE (rest, tail("HEAD ")) {
    return target(*rest, Wish::ONLY_HEADERS);
  }
  for (auto method : {"POST "_kj, "PUT "_kj, "DELETE "_kj, "OPTIONS "_kj, "PATCH "_kj}) {
    if (!line.startsWith(method)) continue;
    return fuzz::isPlanted(fuzz::Bug::ANY_METHOD) ? Wish::METRICS : Wish::OTHER_METHOD;
  }
  return Wish::NONSENSE;
}

kj::String answer(kj::StringPtr status, kj::StringPtr type, kj::StringPtr body,
                  bool withBody = true) {
  return kj::str("HTTP/1.1 ", status, "\r\nContent-Type: ", type,
                 "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n",
                 withBody ? body : ""_kj);
}

class Session {
 public:
  Session(kj::Own<kj::AsyncIoStream> stream, Vm::Client vm)
      : stream(kj::mv(stream)), vm(kj::mv(vm)) {}

  kj::Promise<void> serve() {
    return readRequest()
        .then([this](Wish wish) { return reply(wish); })
        .then([this](kj::String text) {
          response = kj::mv(text);
          return stream->write(response.begin(), response.size());
        })
        .then([this]() {
          stream->shutdownWrite();
          // Closing with unread bytes would take the answer back.
          return drain();
        });
  }

 private:
  // Up to the empty line behind the headers.
  kj::Promise<Wish> readRequest() {
    return stream->tryRead(request + have, 1, sizeof(request) - have)
        .then([this](size_t n) -> kj::Promise<Wish> {
          have += n;
          bool isWhole = memmem(request, have, "\r\n\r\n", 4) != nullptr ||
                         memmem(request, have, "\n\n", 2) != nullptr;
          if (isWhole) return firstLine();
          if (n == 0 || have == sizeof(request)) return Wish::NONSENSE;
          return readRequest();
        });
  }

  Wish firstLine() {
    auto end = static_cast<const char*>(memchr(request, '\n', have));
    size_t size = end - request;
    if (size > 0 && request[size - 1] == '\r') size--;
    if (memchr(request, 0, size) != nullptr) return Wish::NONSENSE;
    return wishIn(kj::heapString(request, size));
  }

  kj::Promise<kj::String> reply(Wish wish) {
    switch (wish) {
      case Wish::METRICS:
      case Wish::ONLY_HEADERS:
        return vm.loadRequest().send().then([wish](auto&& load) {
          auto text = metricsText(load.getLoad());
          return answer("200 OK", METRICS, text, wish == Wish::METRICS);
        });
      case Wish::ELSEWHERE:
        return answer("404 Not Found", PLAIN, "the metrics are at /metrics\n");
      case Wish::OTHER_METHOD:
        return answer("405 Method Not Allowed\r\nAllow: GET, HEAD", PLAIN, "only GET and HEAD\n");
      case Wish::NONSENSE:
        break;
    }
    return answer("400 Bad Request", PLAIN, "not an HTTP request this can read\n");
  }

  kj::Promise<void> drain() {
    return stream->tryRead(request, 1, sizeof(request)).then([this](size_t n) -> kj::Promise<void> {
      drained += n;
      if (n == 0 || drained > sizeof(request)) return kj::READY_NOW;
      return drain();
    });
  }

  kj::Own<kj::AsyncIoStream> stream;
  Vm::Client vm;
  char request[MOST_REQUEST_BYTES];
  size_t have = 0;
  size_t drained = 0;
  kj::String response;
};

}  // namespace

kj::Promise<void> serveMetrics(kj::Own<kj::AsyncIoStream> stream, Vm::Client vm, kj::Timer& timer) {
  auto session = kj::heap<Session>(kj::mv(stream), kj::mv(vm));
  auto served = session->serve();
  return served.exclusiveJoin(timer.afterDelay(METRICS_PATIENCE)).attach(kj::mv(session));
}

}  // namespace troupe::front
