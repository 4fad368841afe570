#pragma once

namespace troupe {

// The process that compiles the profiles of `--profile-dir` for `troupe`: a jailed actor, since it
// parses what somebody wrote. Its configuration is a CompileRequest, its fd "result" takes the
// CompileResult (protos/compiled_profile.capnp). Ends the process.
[[noreturn]] void playCompiler();

}  // namespace troupe
