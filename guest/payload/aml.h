#pragma once

#include <stdint.h>

// The two facts the payload wants from a DSDT, found by their shape and without an interpreter.
namespace payload {

// Finds Name(_S5, Package(){type, ...}) in AML (ACPI 6.4, §7.4.2). False when it is not there.
bool findS5(const uint8_t* aml, uint32_t length, uint8_t& type);

// Finds a constant _CBA, as a Name or as a Method that returns it: where a PCI host bridge has its
// ECAM (PCI firmware specification 3.3, §4.1.3). 0 when it is not there.
uint64_t findConfigBase(const uint8_t* aml, uint32_t length);

}  // namespace payload
