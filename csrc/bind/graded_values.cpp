#include "bind/graded_values.hpp"

#include "bind/array.hpp"
#include "bind/poll.hpp"
#include "cpu/graded_values.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run.
bool graded_values(const py::array& matrices, const py::array& exponents, std::int64_t most_sweeps,
                   const py::array& values, const py::array& exponents_out, const py::array& status, int threads,
                   const py::object& memory, const std::string& isa) {
  if (matrices.ndim() != 3) throw py::value_error("matrices: expected (batch, rows, columns)");
  ops::GradedValues op;
  op.batch = matrices.shape(0);
  op.rows = matrices.shape(1);
  op.cols = matrices.shape(2);
  for (const std::int64_t size : {op.batch, op.rows, op.cols}) expect_some(size, "matrices");
  expect_some(most_sweeps, "most_sweeps");
  op.most_sweeps = most_sweeps;
  op.matrices = needed_input<double>(matrices, "matrices", {op.batch, op.rows, op.cols});
  op.exponents = needed_input<std::int64_t>(exponents, "exponents", {op.batch, op.rows});
  op.values = needed_output<double>(values, "values", {op.batch, op.rows});
  op.exponents_out = needed_output<std::int64_t>(exponents_out, "exponents_out", {op.batch, op.rows});
  op.status = statuses(status, op.batch);

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(py::none(), 0, [&](Control& control, const auto& poll) {
    cpu::run(op, chosen, threads, free_bytes(memory), control, poll);
  });
}

}  // namespace

void add_graded_values(py::module_& m) {
  using namespace py::literals;
  m.def("graded_values", &graded_values, "matrices"_a.noconvert(), "exponents"_a.noconvert(), "most_sweeps"_a,
        "values"_a.noconvert(), "exponents_out"_a.noconvert(), "status"_a.noconvert(), "threads"_a, "memory"_a,
        "isa"_a);
}

}  // namespace pydln::bind
