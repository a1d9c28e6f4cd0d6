#pragma once

#include <pybind11/pybind11.h>

namespace pydln::bind {

void add_riccati(pybind11::module_& m);

}  // namespace pydln::bind
