// Python functions nonlinear_f64, nonlinear_f32, activate_f64 and activate_f32.
#pragma once

#include <pybind11/pybind11.h>

namespace pydln::bind {

void add_nonlinear(pybind11::module_& m);

}  // namespace pydln::bind
