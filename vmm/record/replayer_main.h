#pragma once

namespace troupe {

// The jailed process of `troupe replay` (replayer.capnp), to its end.
void playReplayer();

}  // namespace troupe
