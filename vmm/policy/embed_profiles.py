"""Prints C++ that holds the text of the profiles given as arguments."""
import sys


def literal(text):
    """Adjacent string literals, a line each; no compiler has to take a very long one."""
    lines = text.splitlines(keepends=True) or [""]
    escape = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r"})
    return "\n     ".join('"%s"' % line.translate(escape) for line in lines)


def main():
    print('#include "vmm/policy/built_in_profiles.h"\n\nnamespace troupe {\n')
    print("const BuiltInProfile BUILT_IN_PROFILES[] = {")
    for path in sorted(set(sys.argv[1:])):
        with open(path, encoding="ascii") as file:
            print('    {"%s",\n     %s},' % (path, literal(file.read())))
    print("};\n\nconst size_t BUILT_IN_PROFILE_COUNT = sizeof(BUILT_IN_PROFILES) / "
          "sizeof(BUILT_IN_PROFILES[0]);\n\n}  // namespace troupe")


if __name__ == "__main__":
    main()
