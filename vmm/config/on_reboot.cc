#include "vmm/config/on_reboot.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

OnReboot parseOnReboot(kj::StringPtr text) {
  if (text == "restart") return OnReboot::RESTART;
  if (text == "exit") return OnReboot::EXIT;
  constexpr kj::StringPtr WORDS[] = {"restart"_kj, "exit"_kj};
  UserError(codes::NOT_A_CHOICE,
            kj::str("--on-reboot ", quote(text),
                    " is not what can follow a reboot of the guest; expected restart or exit",
                    didYouMean(text, WORDS)))
      .raise();
}

}  // namespace troupe
