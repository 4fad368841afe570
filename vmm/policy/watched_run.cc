#include "vmm/policy/watched_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sandbox/tool/tool_error.h"

namespace troupe {
namespace {

using sandbox::quoted;
using sandbox::ToolError;

volatile sig_atomic_t runningChild = 0;

void passOn(int signal) {
  if (runningChild > 0) kill(runningChild, signal);
}

std::vector<std::string> filesIn(const std::string& folder) {
  std::vector<std::string> files;
  DIR* entries = opendir(folder.c_str());
  if (entries == nullptr) return files;
  while (const dirent* entry = readdir(entries)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") files.push_back(folder + "/" + name);
  }
  closedir(entries);
  return files;
}

[[noreturn]] void becomeProgram(const std::string& program, const std::vector<std::string>& words,
                                const std::string& variable, bool outputToStandardError,
                                int failure) {
  if (outputToStandardError) dup2(STDERR_FILENO, STDOUT_FILENO);
  if (!variable.empty()) putenv(const_cast<char*>(variable.c_str()));
  std::vector<char*> arguments;
  for (const std::string& word : words)
    arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(program.c_str(), arguments.data());
  int error = errno;
  if (write(failure, &error, sizeof(error)) < 0) _exit(126);
  _exit(127);
}

}  // namespace

RecordFolder::RecordFolder(const std::string& parent, bool everybodys)
    : name(parent + "/troupe-calls-XXXXXX") {
  // The mask of the user does not count here: actors of other users' VMs are recorded too.
  bool made = mkdtemp(name.data()) != nullptr;
  if (!made || (everybodys && chmod(name.c_str(), 01777) < 0)) {
    throw ToolError("TRP-cfg-122", "nothing can be written into " + quoted(parent) + ": " +
                                       strerror(errno) + "\n  see: ls -ld " + quoted(parent));
  }
}

RecordFolder::~RecordFolder() {
  for (const std::string& file : filesIn(name))
    unlink(file.c_str());
  rmdir(name.c_str());
}

std::vector<sandbox::CallRecord> RecordFolder::read() const {
  std::vector<sandbox::CallRecord> records;
  for (const std::string& path : filesIn(name)) {
    struct stat info;
    if (lstat(path.c_str(), &info) < 0 || !S_ISREG(info.st_mode)) continue;
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    sandbox::readRecords(text.str(), records);
  }
  return records;
}

std::string findProgram(const std::string& word) {
  if (word.find('/') != std::string::npos) return word;
  const char* path = getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/bin:/bin" : path);
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    std::string candidate = (folder.empty() ? "." : folder) + "/" + word;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  throw ToolError("TRP-cfg-120", "there is no command " + quoted(word) +
                                     " in any folder of PATH\n  see: command -v " + word);
}

int runProgram(const std::string& program, const std::vector<std::string>& words,
               const std::string& variable, bool outputToStandardError) {
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) < 0) throw ToolError("TRP-cfg-120", strerror(errno));
  pid_t child = fork();
  if (child == 0) becomeProgram(program, words, variable, outputToStandardError, failure[1]);
  int forkError = errno;
  close(failure[1]);
  if (child < 0) {
    close(failure[0]);
    throw ToolError("TRP-cfg-120", std::string("no process can be made: ") + strerror(forkError));
  }
  runningChild = child;
  struct sigaction ignore = {}, pass = {};
  ignore.sa_handler = SIG_IGN;
  pass.sa_handler = passOn;
  pass.sa_flags = SA_RESTART;
  for (int number : {SIGINT, SIGQUIT})
    sigaction(number, &ignore, nullptr);
  for (int number : {SIGTERM, SIGHUP})
    sigaction(number, &pass, nullptr);
  int error = 0, status = 0;
  bool failed = read(failure[0], &error, sizeof(error)) == sizeof(error);
  close(failure[0]);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  runningChild = 0;
  if (failed) {
    throw ToolError("TRP-cfg-120", quoted(program) + " cannot be executed: " + strerror(error) +
                                       "\n  see: ls -l " + program);
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace troupe
