#pragma once

#include <pybind11/pybind11.h>

namespace pydln::bind {

void add_two_layer_mode(pybind11::module_& m);

}  // namespace pydln::bind
