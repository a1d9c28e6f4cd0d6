// Runs ops::Nonlinear on the processor: chooses workers, hands out members.
#pragma once

#include <functional>

#include "core/control.hpp"
#include "cpu/isa.hpp"
#include "ops/nonlinear.hpp"

namespace pydln::cpu {

// As for ops::Descent (cpu/descent.hpp).
template <class T>
void run(const ops::Nonlinear<T>& op, const Isa& isa, Layout layout, int threads,
         const std::function<std::size_t()>& memory, Control& control, const std::function<void()>& poll);

}  // namespace pydln::cpu
