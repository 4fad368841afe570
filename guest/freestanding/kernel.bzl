"""Guests that run on the bare machine."""

FLAGS = [
    "-I.",
    "-std=c++17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    # clang speaks up about options of the linker when it compiles and the other way round.
    "-Wno-unused-command-line-argument",
    "-ffreestanding",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-pic",
    "-fcf-protection=none",
    # Ring 0 leaves the vector registers off, and interrupts may use the stack below.
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-fuse-ld=lld",
    "-Wl,--build-id=none",
]

def freestanding_kernel(name, out, srcs, script, headers = [], linkopts = [], **kwargs):
    """A kernel as `script`, the linker's, lays it out.

    A rule of its own and not a cc_binary: nothing of the flags that host programs get (.bazelrc:
    position independence, stack protector, sanitizers) fits it.

    Args:
      name: of the rule.
      out: the file it makes.
      srcs: what is compiled and assembled.
      script: the linker script.
      headers: what srcs include.
      linkopts: more for the linker.
      **kwargs: as with every rule.
    """
    native.genrule(
        name = name,
        srcs = srcs + [script] + headers,
        outs = [out],
        cmd = "$(CC) %s -Wl,-T,$(location %s) %s -o $@" % (
            " ".join(FLAGS + linkopts),
            script,
            " ".join(["$(location %s)" % src for src in srcs]),
        ),
        message = "Building the guest " + name,
        toolchains = ["@bazel_tools//tools/cpp:current_cc_toolchain"],
        **kwargs
    )
