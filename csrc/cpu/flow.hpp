// Runs ops::Flow on the processor; all that cpu/descent.hpp says of its run holds for this one.
#pragma once

#include <functional>

#include "core/control.hpp"
#include "cpu/isa.hpp"
#include "ops/flow.hpp"

namespace pydln::cpu {

template <class T>
void run(const ops::Flow<T>& op, const Isa& isa, Layout layout, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll);

}  // namespace pydln::cpu
