#include "bind/singular_values.hpp"

#include <algorithm>

#include "bind/array.hpp"
#include "bind/poll.hpp"
#include "cpu/singular_values.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run.
bool singular_values(const py::array& matrices, std::int64_t most_steps, const py::array& values,
                     const py::array& status, int threads, const py::object& memory, const std::string& isa) {
  if (matrices.ndim() != 3) throw py::value_error("matrices: expected (batch, rows, columns)");
  ops::SingularValues op;
  op.batch = matrices.shape(0);
  op.rows = matrices.shape(1);
  op.cols = matrices.shape(2);
  for (const std::int64_t size : {op.batch, op.rows, op.cols}) expect_some(size, "matrices");
  expect_some(most_steps, "most_steps");
  op.most_steps = most_steps;
  op.matrices = needed_input<double>(matrices, "matrices", {op.batch, op.rows, op.cols});
  op.values = needed_output<double>(values, "values", {op.batch, std::min(op.rows, op.cols)});
  op.status = statuses(status, op.batch);

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(py::none(), 0, [&](Control& control, const auto& poll) {
    cpu::run(op, chosen, threads, free_bytes(memory), control, poll);
  });
}

}  // namespace

void add_singular_values(py::module_& m) {
  using namespace py::literals;
  m.def("singular_values", &singular_values, "matrices"_a.noconvert(), "most_steps"_a, "values"_a.noconvert(),
        "status"_a.noconvert(), "threads"_a, "memory"_a, "isa"_a);
}

}  // namespace pydln::bind
