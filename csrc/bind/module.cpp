// Table of contents of the extension pydln._core.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/balanced_mode.hpp"
#include "bind/descent.hpp"
#include "bind/flow.hpp"
#include "bind/graded_values.hpp"
#include "bind/modes.hpp"
#include "bind/nonlinear.hpp"
#include "bind/riccati.hpp"
#include "bind/singular_values.hpp"
#include "bind/two_layer_mode.hpp"
#include "cpu/isa.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of pydln; reached through pydln._base.backend only.";
  // An entry of a dictionary that is no number.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): the type is pybind11's
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const py::cast_error& wrong) {
      py::set_error(PyExc_ValueError, wrong.what());
    }
  });
  pydln::bind::add_balanced_mode(m);
  pydln::bind::add_descent(m);
  pydln::bind::add_flow(m);
  pydln::bind::add_graded_values(m);
  pydln::bind::add_modes(m);
  pydln::bind::add_nonlinear(m);
  pydln::bind::add_riccati(m);
  pydln::bind::add_singular_values(m);
  pydln::bind::add_two_layer_mode(m);
  m.def("usable_isas", [] {
    std::vector<std::string> names;
    for (const auto& isa : pydln::cpu::usable_isas()) names.push_back(isa.name);
    return names;
  });
  m.def("best_isa", &pydln::cpu::best_isa);
  m.attr("build") =
      py::dict(py::arg("version") = PYDLN_VERSION, py::arg("compiler") = PYDLN_COMPILER,
               py::arg("build_type") = PYDLN_BUILD_TYPE, py::arg("instruction_sets") = PYDLN_COMPILED_SETS);
}
