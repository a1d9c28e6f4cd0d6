// Which instruction sets this computer can run, and the kernels of each.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/body.hpp"

namespace pydln::cpu {

struct Isa {
  std::string name;
  DescentBody<double> (*descent_f64)(Layout, bool task_per_member);
  DescentBody<float> (*descent_f32)(Layout, bool task_per_member);

  template <class T>
  DescentBody<T> descent(Layout layout, bool task_per_member) const {
    if constexpr (sizeof(T) == sizeof(double))
      return descent_f64(layout, task_per_member);
    else
      return descent_f32(layout, task_per_member);
  }
};

// Those compiled in and supported by processor and operating system, best last. Never empty, or throws.
const std::vector<Isa>& usable_isas();

// By name; throws std::invalid_argument naming those usable.
const Isa& isa_named(const std::string& name);

}  // namespace pydln::cpu
