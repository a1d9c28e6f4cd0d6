// Runs ops::Descent on the processor: chooses layout and workers, hands out members.
#pragma once

#include <functional>
#include <string>

#include "core/control.hpp"
#include "cpu/isa.hpp"
#include "ops/descent.hpp"

namespace pydln::cpu {

// Floating-point operations of one step of one network (math/cost.hpp).
double step_flops(const Chain& chain, bool whitened);

// Whether products are carried from the input side, which is cheaper then (math/cost.hpp).
bool carries_inputs(const Chain& chain);

// Every member is run by one worker, from start to end; its bits do not depend on `threads`, on the layout, or on
// who shares its vector. `poll` is called now and then on the calling thread while workers run and may set
// control.cancel: members in work then stop with Status::interrupted, those not begun keep what the caller put there.
// `memory` tells how many bytes are free for workspaces (asked only when they are large): as many workers as fit are
// used. Throws std::length_error, with a sentence for the user, when not even one fits; std::bad_alloc when the system refuses; both before any work is done.
template <class T>
void run(const ops::Descent<T>& op, const Isa& isa, Layout layout, int threads,
         const std::function<std::size_t()>& memory, Control& control, const std::function<void()>& poll);

}  // namespace pydln::cpu
