"""cpp_proto_library: C++ from protobuf schemas, by the distribution's `protoc`."""

def cpp_proto_library(name, srcs, **kwargs):
    """Makes `name`, a cc_library of what `protoc` generates from `srcs`.

    Args:
      name: the library; code includes "folder/file.pb.h".
      srcs: schema files of this package; imports are written from the root of the tree.
      **kwargs: passed to the cc_library.
    """
    stems = [src[:-len(".proto")] for src in srcs]
    native.genrule(
        name = name + "_generated",
        srcs = srcs,
        outs = [stem + ".pb.h" for stem in stems] + [stem + ".pb.cc" for stem in stems],
        cmd = "protoc -I. --cpp_out=$(BINDIR) $(SRCS)",
        message = "Generating C++ from",
    )
    native.cc_library(
        name = name,
        srcs = [stem + ".pb.cc" for stem in stems],
        hdrs = [stem + ".pb.h" for stem in stems],
        deps = ["//third_party:protobuf"],
        **kwargs
    )
