#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

namespace troupe {

// Whether `troupe disk resize WORDS` is about a disk of a running VM: --vm is among them.
bool isAboutVm(kj::ArrayPtr<const kj::StringPtr> words);

// `troupe disk resize DISK [SIZE] --vm VM`: a disk of a running VM becomes larger, and its guest is
// told. `words`: what follows "resize".
ExitCode resizeDiskOfVm(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
