"""How what runs for each request is compiled."""

# With -fPIC, as all is compiled, another library could put its own in the place of any function, so the compiler
# keeps each of them apart. Nothing is ever put there: the executables are static.
HOT = ["-fno-semantic-interposition"]
