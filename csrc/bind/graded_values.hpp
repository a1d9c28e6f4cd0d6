#pragma once

#include <pybind11/pybind11.h>

namespace pydln::bind {

void add_graded_values(pybind11::module_& m);

}  // namespace pydln::bind
