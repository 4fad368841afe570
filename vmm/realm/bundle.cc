#include "vmm/realm/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/files/open_file.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::StringPtr FILE_SCHEME = "file://"_kj;
constexpr size_t MOST_GRANTED = 16;        // directories
constexpr size_t LARGEST_TEXT = 64 << 10;  // so that who writes nonsense takes nobody's time

kj::Maybe<int> hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return nullptr;
}

[[noreturn]] void badUrl(kj::StringPtr url, kj::StringPtr why) {
  UserError(codes::BUNDLE_URL, kj::str("the bundle ", quote(url), " ", why)).raise();
}

// A path as a file:// url writes it.
kj::String unescaped(kj::StringPtr url, kj::StringPtr text) {
  kj::Vector<char> path;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '%') {
      path.add(text[i]);
      continue;
    }
    auto digit = [&](size_t at) {
      return at < text.size() ? hexDigit(text[at]).orDefault(-1) : -1;
    };
    int high = digit(i + 1), low = digit(i + 2);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) {
      badUrl(url, "has a '%' without two hexadecimal digits of a character behind it");
    }
    path.add(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return kj::heapString(path);
}

bool hasParent(kj::StringPtr path) {
  auto rest = path.asArray();
  for (;;) {
    size_t end = 0;
    while (end < rest.size() && rest[end] != '/')
      end++;
    if (end == 2 && rest[0] == '.' && rest[1] == '.') return true;
    if (end == rest.size()) return false;
    rest = rest.slice(end + 1, rest.size());
  }
}

kj::StringPtr withoutSlashes(kj::StringPtr path) {
  while (path.startsWith("/"))
    path = path.slice(1);
  return path;
}

// How `path` goes on below `directory`, if it lies there.
kj::Maybe<kj::StringPtr> below(kj::StringPtr directory, kj::StringPtr path) {
  if (!path.startsWith(directory)) return nullptr;
  auto rest = path.slice(directory.size());
  if (rest.size() > 0 && !rest.startsWith("/")) return nullptr;
  return withoutSlashes(rest);
}

// An fd that stands for the file and can do nothing yet, or -1 and errno.
int lookUp(int directory, kj::StringPtr path) {
  struct open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  // Somebody may be renaming what the path leads through.
  for (int tries = 0; tries < 16; tries++) {
    long fd = syscall(SYS_openat2, directory, path.cStr(), &how, sizeof(how));
    if (fd >= 0 || errno != EAGAIN) return static_cast<int>(fd);
  }
  return -1;
}

mode_t modeOf(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return info.st_mode;
}

// The same file, opened for use.
int openFound(int found, int flags) {
  auto self = kj::str("/proc/self/fd/", found);
  return ::open(self.cStr(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

}  // namespace

kj::String pathOfUrl(kj::StringPtr url) {
  if (memchr(url.begin(), 0, url.size()) != nullptr) badUrl(url, "has a zero byte in its name");
  if (url.startsWith("/")) return kj::heapString(url);
  if (!url.startsWith(FILE_SCHEME)) {
    badUrl(url, "is not named by an absolute path, or by file:// and one");
  }
  auto rest = url.slice(FILE_SCHEME.size());
  if (rest.startsWith("localhost/")) rest = rest.slice(strlen("localhost"));
  if (!rest.startsWith("/")) badUrl(url, "is another machine's; expected file:/// and a path");
  return unescaped(url, rest);
}

Bundle::Bundle(kj::StringPtr url, FlatNamespace::Reader grants,
               kj::Array<kj::AutoCloseFd> directories)
    : path(pathOfUrl(url)) {
  int fd = ::open(path.cStr(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    UserError(codes::BUNDLE_URL,
              kj::str("the bundle ", quote(path), " cannot be opened: ", errnoText(errno)))
        .advice("see", kj::str("ls -ld ", shellWord(path)))
        .raise();
  }
  directory = kj::AutoCloseFd(fd);

  auto paths = grants.getPaths();
  auto refuse = [](kj::StringPtr which, kj::StringPtr why) {
    UserError(codes::FLAT_NAMESPACE, kj::str("flatNamespace: ", which, " ", why)).raise();
  };
  if (paths.size() != directories.size()) {
    refuse(kj::str(paths.size(), " paths and ", directories.size(), " directories"),
           "are not as many of one as of the other");
  }
  if (paths.size() > MOST_GRANTED) {
    refuse(kj::str(paths.size(), " directories"), kj::str("are more than ", MOST_GRANTED));
  }
  for (auto i : kj::indices(directories)) {
    kj::StringPtr given = paths[i];
    auto name = kj::heapString(given);
    while (name.endsWith("/"))
      name = kj::heapString(name.slice(0, name.size() - 1));
    bool isAbsolute = name.startsWith("/");
    if (!isAbsolute || hasParent(name) || memchr(given.begin(), 0, given.size()) != nullptr) {
      refuse(quote(given), "is not a path that begins with '/', names something and has no \"..\"");
    }
    for (auto& earlier : granted) {
      if (earlier.path == name) refuse(quote(given), "is granted twice");
    }
    auto mode = modeOf(directories[i]);
    if (!S_ISDIR(mode)) {
      refuse(quote(given), kj::str("is given ", fileKind(mode), "; expected a directory"));
    }
    granted.add(Granted{kj::mv(name), kj::mv(directories[i])});
  }
}

Bundle::Place Bundle::placeOf(kj::StringPtr what, kj::StringPtr asked) const {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::BUNDLE_PATH, kj::str(what, " ", quote(asked), " ", why)).raise();
  };
  if (memchr(asked.begin(), 0, asked.size()) != nullptr) refuse("has a zero byte in its name");
  if (hasParent(asked)) refuse("has \"..\" in it; a path in a bundle leads downwards alone");
  Place place{directory, path, kj::heapString(withoutSlashes(asked))};
  size_t longest = 0;
  for (auto& one : granted) {
    if (one.path.size() <= longest) continue;
    KJ_IF_MAYBE (rest, below(one.path, asked)) {
      longest = one.path.size();
      place = Place{one.directory, one.path, kj::heapString(*rest)};
    }
  }
  if (place.relative.size() == 0) refuse("names a directory; expected a file in it");
  return place;
}

kj::AutoCloseFd Bundle::find(kj::StringPtr what, kj::StringPtr asked) const {
  auto place = placeOf(what, asked);
  int fd = lookUp(place.directory, place.relative);
  int error = errno;
  if (fd < 0 && (error == EXDEV || error == ELOOP)) {
    UserError(codes::BUNDLE_PATH,
              kj::str(what, " ", quote(asked), " leads out of ", quote(place.name),
                      error == ELOOP ? ", or round in a circle" : "",
                      "; a file of a bundle lies in it, or in a directory that is granted with it"))
        .advice("see", kj::str("ls -l ", shellWord(kj::str(place.name, "/", place.relative))))
        .raise();
  }
  if (fd < 0) {
    cannotOpen(kj::str(what, " of the bundle"), asked, O_RDONLY, error,
               kj::str(place.name, "/", place.relative));
  }
  kj::AutoCloseFd found(fd);
  auto mode = modeOf(found);
  if (!S_ISREG(mode)) {
    UserError(codes::BUNDLE_PATH, kj::str(what, " ", quote(asked), " of the bundle is ",
                                          fileKind(mode), "; a bundle's files are regular files"))
        .raise();
  }
  return found;
}

kj::Maybe<mode_t> Bundle::kindOf(kj::StringPtr what, kj::StringPtr asked) const {
  return modeOf(find(what, asked));
}

kj::AutoCloseFd Bundle::open(kj::StringPtr what, kj::StringPtr asked, int flags) const {
  auto found = find(what, asked);
  int fd = openFound(found, flags);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  int error = errno;
  auto place = placeOf(what, asked);
  cannotOpen(kj::str(what, " of the bundle"), asked, flags, error,
             kj::str(place.name, "/", place.relative));
}

kj::Maybe<kj::Array<char>> Bundle::readText(kj::StringPtr name) const {
  auto shown = kj::str(path, "/", name);
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::CONFIG_UNREADABLE,
              kj::str("configuration file ", quote(shown), " cannot be read: ", why))
        .raise();
  };
  int found = lookUp(directory, name);  // the bundle's own, whatever was granted
  if (found < 0 && errno == ENOENT) return nullptr;
  if (found < 0) refuse(errno == EXDEV ? kj::str("it leads out of the bundle") : errnoText(errno));
  kj::AutoCloseFd place(found);
  auto mode = modeOf(place);
  if (!S_ISREG(mode)) refuse(kj::str("it is ", fileKind(mode)));
  int opened = openFound(place, O_RDONLY);
  if (opened < 0) refuse(errnoText(errno));
  kj::AutoCloseFd file(opened);
  auto text = kj::heapArray<char>(LARGEST_TEXT + 1);
  size_t have = 0;
  while (have < text.size()) {
    ssize_t got = ::read(file, text.begin() + have, text.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(errnoText(errno));
    if (got == 0) break;
    have += got;
  }
  if (have > LARGEST_TEXT) refuse("it is larger than 64 KiB");
  return kj::heapArray<char>(text.slice(0, have));
}

}  // namespace troupe::realm
