"""A fuzz target: a libFuzzer binary, and a short run of it from its corpus as a test.

Both need `--config=fuzz` and are left out of `//...`; tools/test runs the tests, tools/fuzz the
binary.
"""

def fuzz_target(name, srcs, deps, runs = 20000, own_mutator = False, linkopts = []):
    """NAME is the binary; NAME_test runs it `runs` times from tests/fuzz/corpus/NAME on.

    Args:
      name: fuzz_… and the device.
      srcs: with LLVMFuzzerTestOneInput.
      deps: what is fuzzed.
      runs: inputs of the test.
      linkopts: of the binary.
      own_mutator: whether inputs are something else than operations (tests/fuzz/op.h).
    """
    native.cc_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        linkopts = ["-fsanitize=fuzzer"] + linkopts,
        tags = [
            "fuzz",
            "manual",
        ],
        visibility = ["//tests/fuzz:__pkg__"],
        deps = deps + ([] if own_mutator else ["//tests/fuzz:op_mutator"]),
    )
    native.sh_test(
        name = name + "_test",
        size = "medium",
        srcs = ["//tests/fuzz:run_corpus.sh"],
        args = [
            "$(location :%s)" % name,
            "tests/fuzz/corpus/" + name,
            str(runs),
        ],
        data = [
            ":" + name,
            "//tests/fuzz:corpus_of_" + name,
        ],
        tags = [
            "fuzz",
            "manual",
        ],
        visibility = ["//tests/fuzz:__pkg__"],
    )
