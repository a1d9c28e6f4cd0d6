// Runs ops::Riccati on the processor; all that cpu/descent.hpp says of its run holds for this one.
#pragma once

#include <functional>

#include "core/control.hpp"
#include "cpu/isa.hpp"
#include "ops/riccati.hpp"

namespace pydln::cpu {

void run(const ops::Riccati& op, const Isa& isa, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll);

}  // namespace pydln::cpu
