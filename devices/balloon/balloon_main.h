#pragma once

namespace troupe::balloon {

// The process troupe-balloon: a virtio memory balloon.
int balloonMain();

}  // namespace troupe::balloon
