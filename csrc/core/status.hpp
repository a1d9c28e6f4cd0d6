// How one member's run ended. The numbers are those of pydln.Status.
#pragma once

#include <cstdint>

namespace pydln {

enum class Status : std::int64_t {
  completed = 0,
  reached_loss = 1,
  reached_strength = 2,
  steady = 3,
  diverged = 4,
  interrupted = 5,
  step_limit = 6,
  stiff = 7,
};

}  // namespace pydln
