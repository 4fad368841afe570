"""actor_profile: the constants of a sandbox profile."""

def actor_profile(name, src, includes = [], **kwargs):
    """Makes `name`, a cc_library with the compiled profile `src`.

    Code includes "<package>/<name>.h" and finds the profile as troupe::<NAME>: blk_profile gives
    troupe::BLK_PROFILE.

    Args:
      name: the library, in lower case.
      src: the profile, beside the actor it is for.
      includes: labels of shared rule sets it includes, beyond those in //sandbox/common.
      **kwargs: passed to the cc_library.
    """
    header = "%s/%s.h" % (native.package_name(), name)
    native.genrule(
        name = name + "_generated",
        srcs = [src, "//sandbox/common"] + includes,
        outs = [name + ".h", name + ".cc"],
        cmd = "$(location //sandbox:profile_compiler) $(location %s) %s %s $(OUTS)" %
              (src, name, header),
        message = "Compiling sandbox profile",
        tools = ["//sandbox:profile_compiler"],
    )
    # As written, for tests that compare it with what runs.
    native.filegroup(
        name = name + "_text",
        srcs = [src, "//sandbox/common"] + includes,
        visibility = ["//visibility:public"],
    )
    native.cc_library(
        name = name,
        srcs = [name + ".cc"],
        hdrs = [name + ".h"],
        deps = ["//sandbox:profile"],
        **kwargs
    )
