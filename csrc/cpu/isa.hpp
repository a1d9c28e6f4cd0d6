// Which instruction sets this computer can run, and the kernels of each.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/body.hpp"

namespace pydln::cpu {

struct Isa {
  std::string name;
  Kernels kernels;
};

// Those compiled in and supported by processor and operating system, best last. Never empty, or throws.
const std::vector<Isa>& usable_isas();

// By name; throws std::invalid_argument naming those usable.
const Isa& isa_named(const std::string& name);

}  // namespace pydln::cpu
