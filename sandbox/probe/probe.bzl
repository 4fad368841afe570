"""jail_probe_test: what an actor's jail lets through, compared with a table beside its profile."""

def jail_probe_test(name, profile, reach, library):
    """Makes `name` and `name`_as_user, tests of the jail of one actor.

    Args:
      name: the test.
      profile: the actor's profile, a file of this package.
      reach: the table of what gets through, a file of this package.
      library: the actor_profile made from `profile`, of this package.
    """
    package = native.package_name()
    lines = [
        '#include "sandbox/probe/subject.h"',
        '#include "%s/%s.h"' % (package, library),
        "const troupe::sandbox::probe::Subject troupe::sandbox::probe::SUBJECT = {",
        "    troupe::%s," % library.upper(),
        '    "%s/%s",' % (package, profile),
        '    "%s/%s"};' % (package, reach),
    ]
    native.genrule(
        name = name + "_subject",
        outs = [name + "_subject.cc"],
        cmd = "printf '%s\\n' " + " ".join(["'%s'" % line for line in lines]) + " > $@",
    )
    native.cc_test(
        name = name,
        size = "medium",
        srcs = [name + "_subject.cc"],
        data = [
            reach,
            ":%s_text" % library,
            "//sandbox/probe",
        ],
        tags = [
            "jail",
            "local",
        ],
        visibility = ["//tests/lab:__pkg__"],
        deps = [
            ":" + library,
            "//sandbox/probe:actor_probe_test",
            "//third_party:gtest_main",
        ],
    )

    # The same as an ordinary user; bazel itself may run as root.
    native.sh_test(
        name = name + "_as_user",
        size = "medium",
        srcs = ["//sandbox/testing:as_user.sh"],
        args = ["$(location :%s)" % name],
        data = [":" + name],
        tags = [
            "jail",
            "local",
        ],
    )
