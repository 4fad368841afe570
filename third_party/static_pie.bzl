"""static_pie_binary: an executable that needs no file but itself and loads at a fresh address."""

def static_pie_binary(name, **kwargs):
    """A cc_binary linked as a static PIE.

    The linker honours the last of -pie and -static-pie it meets, and silently makes a dynamic
    executable when that is -pie: //tests/vm:executables_test looks at the result.

    Args:
      name: the executable.
      **kwargs: passed to cc_binary.
    """
    native.cc_binary(
        name = name,
        linkopts = kwargs.pop("linkopts", []) + ["-static-pie"],
        **kwargs
    )
