"""capnp_library: C++ from Cap'n Proto schemas, by the distribution's `capnp compile`."""

CapnpInfo = provider(
    doc = "The schemas a Cap'n Proto library is made of.",
    fields = {"schemas": "depset of every schema file it reads, imports included"},
)

def _capnp_generate_impl(ctx):
    schemas = depset(
        ctx.files.srcs,
        transitive = [dep[CapnpInfo].schemas for dep in ctx.attr.deps],
    )
    headers = []
    sources = []
    for src in ctx.files.srcs:
        headers.append(ctx.actions.declare_file(src.basename + ".h"))
        sources.append(ctx.actions.declare_file(src.basename + ".c++"))

    # Imports are written from the root of the tree: import "/protos/device.capnp".
    ctx.actions.run_shell(
        inputs = schemas,
        outputs = headers + sources,
        command = "capnp compile -I. -oc++:\"%s\" %s" % (
            ctx.bin_dir.path,
            " ".join(["'%s'" % src.path for src in ctx.files.srcs]),
        ),
        mnemonic = "CapnpCompile",
        progress_message = "Generating C++ from %s" % ctx.label,
        use_default_shell_env = True,
    )
    return [
        DefaultInfo(files = depset(headers + sources)),
        OutputGroupInfo(headers = depset(headers), sources = depset(sources)),
        CapnpInfo(schemas = schemas),
    ]

_capnp_generate = rule(
    implementation = _capnp_generate_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".capnp"], mandatory = True),
        "deps": attr.label_list(providers = [CapnpInfo]),
    },
)

def capnp_library(name, srcs, deps = [], rpc = True, **kwargs):
    """Makes `name`, a cc_library of what `capnp compile` generates from `srcs`.

    Args:
      name: the library; code includes "folder/file.capnp.h".
      srcs: schema files of this package.
      deps: capnp_library targets whose schemas are imported.
      rpc: whether the schemas hold interfaces.
      **kwargs: passed to the cc_library.
    """
    generated = name + "_generated"
    _capnp_generate(
        name = generated,
        srcs = srcs,
        deps = [dep + "_generated" for dep in deps],
        visibility = kwargs.get("visibility"),
    )
    native.filegroup(name = name + "_headers", srcs = [generated], output_group = "headers")
    native.filegroup(name = name + "_sources", srcs = [generated], output_group = "sources")
    native.cc_library(
        name = name,
        srcs = [name + "_sources"],
        hdrs = [name + "_headers"],
        copts = ["-Wno-unused-parameter"],
        deps = deps + [
            "//third_party:capnp_rpc" if rpc else "//third_party:capnp",
        ],
        **kwargs
    )
