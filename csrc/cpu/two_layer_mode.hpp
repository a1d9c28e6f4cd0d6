// Runs ops::TwoLayerMode on the processor.
#pragma once

#include <functional>

#include "core/control.hpp"
#include "cpu/isa.hpp"
#include "ops/two_layer_mode.hpp"

namespace pydln::cpu {

// Neither threads nor the other points change the bits of one. `poll` is called as in cpu/descent.hpp; points that a
// cancelled run did not come to keep what the caller put there.
void run(const ops::TwoLayerMode& op, const Isa& isa, int threads, Control& control, const std::function<void()>& poll);

}  // namespace pydln::cpu
