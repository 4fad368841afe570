#!/bin/sh
# jailed_test.sh DEVICE INPUTS
exec tests/fuzz/jailed "$1" --inputs "$2" --corpus "tests/fuzz/corpus/fuzz_$1"
