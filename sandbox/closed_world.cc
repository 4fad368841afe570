// Takes the place of what the C library offers for reaching outside the process and what kj refers
// to without an actor ever needing it: looking up host names (kj's network) and running a program
// (kj's stack traces call addr2line). Linked into every program of ours, so that none contains the
// resolver, the dynamic loader behind it, or a way to start a shell.

#include <errno.h>
#include <netdb.h>
#include <stdio.h>

extern "C" {

int getaddrinfo(const char*, const char*, const addrinfo*, addrinfo** result) {
  *result = nullptr;
  return EAI_FAIL;
}

void freeaddrinfo(addrinfo*) {}

const char* gai_strerror(int) {
  return "host names are not looked up here";
}

FILE* popen(const char*, const char*) {
  errno = EPERM;
  return nullptr;
}

int pclose(FILE*) {
  errno = EPERM;
  return -1;
}

}  // extern "C"
