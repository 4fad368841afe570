#pragma once

namespace troupe {

// What becomes of an actor that has died.
enum class AfterDeath {
  REPLACED,    // another process takes its place
  STAYS_DOWN,  // the same, once its driver resets the device
  IS_LOST,     // the VM ends
};

}  // namespace troupe
