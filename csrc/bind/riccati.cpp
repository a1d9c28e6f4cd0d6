#include "bind/riccati.hpp"

#include "bind/array.hpp"
#include "bind/poll.hpp"
#include "cpu/riccati.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run.
bool riccati(const py::array& start, const py::array& floor, const py::array& w, const py::array& rate,
             const py::array& vectors, const py::array& strengths, const py::array& begin, const py::array& outer,
             std::int64_t outside_in, const py::array& t, const py::array& place, const Dict& rule,
             std::int64_t most_steps, const py::array& inputs, const py::array& outputs, const py::object& out,
             const py::object& first, const py::object& second, const py::array& status, int threads,
             const py::object& memory, const std::string& isa) {
  if (start.ndim() != 3 || vectors.ndim() != 3 || t.ndim() != 2 || inputs.ndim() != 3 || outputs.ndim() != 3)
    throw py::value_error("start, vectors, t, inputs, outputs: expected 3, 3, 2, 3 and 3 axes");
  ops::Riccati op;
  op.batch = start.shape(0);
  op.rows = start.shape(1);
  op.cols = start.shape(2);
  op.modes = vectors.shape(2);
  op.outside_in = outside_in;
  op.outside_out = op.rows - 2 * op.modes - outside_in;
  op.times = t.shape(1);
  op.most_steps = most_steps;
  if (op.rows < 1 || op.cols < 1 || outside_in < 0 || op.outside_out < 0)
    throw py::value_error("start: expected two rows for each mode and those outside");
  op.start = input<double>(start, "start", {op.batch, op.rows, op.cols});
  op.floor = input<double>(floor, "floor", {op.batch, op.rows});
  op.w = input<double>(w, "w", {op.batch, op.rows});
  op.rate = input<double>(rate, "rate", {op.batch, op.rows + 1});
  op.vectors = input<double>(vectors, "vectors", {op.batch, 2, op.modes});
  op.strengths = input<double>(strengths, "strengths", {op.batch, op.modes});
  op.begin = input<double>(begin, "begin", {op.batch, op.rows, op.cols});
  op.outer = input<std::int64_t>(outer, "outer", {op.batch});
  op.t = input<double>(t, "t", {op.batch, op.times});
  op.place = input<std::int64_t>(place, "place", {op.batch, op.times});
  for (std::int64_t i = 0; i < op.batch * op.times; ++i)
    if (op.place[i] < 0 || op.place[i] >= op.times) throw py::value_error("place: expected indices of times");
  op.nodes = input<double>(rule["nodes"], "nodes", {ops::kNodes});
  op.integrals = input<double>(rule["integrals"], "integrals", {ops::kNodes, ops::kNodes});
  op.coefficients = input<double>(rule["coefficients"], "coefficients", {ops::kNodes, ops::kNodes});
  if (!op.nodes || !op.integrals || !op.coefficients) throw py::value_error("rule: expected arrays, got None");
  op.n_in = inputs.shape(1);
  op.n_out = outputs.shape(1);
  op.inputs = input<double>(inputs, "inputs", {op.batch, op.n_in, op.rows});
  op.outputs = input<double>(outputs, "outputs", {op.batch, op.n_out, op.rows});
  op.first = output<double>(first, "first", {op.batch, op.times, op.cols, op.n_in});
  op.second = output<double>(second, "second", {op.batch, op.times, op.n_out, op.cols});
  op.out = output<double>(out, "out", {op.batch, op.times, op.rows, op.cols});
  op.status = statuses(status, op.batch);

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(py::none(), 0, [&](Control& control, const auto& poll) {
    cpu::run(op, chosen, threads, free_bytes(memory), control, poll);
  });
}

}  // namespace

void add_riccati(py::module_& m) {
  using namespace py::literals;
  m.def("riccati", &riccati, "start"_a.noconvert(), "floor"_a.noconvert(), "w"_a.noconvert(), "rate"_a.noconvert(),
        "vectors"_a.noconvert(), "strengths"_a.noconvert(), "begin"_a.noconvert(), "outer"_a.noconvert(),
        "outside_in"_a, "t"_a.noconvert(), "place"_a.noconvert(), "rule"_a, "most_steps"_a, "inputs"_a.noconvert(),
        "outputs"_a.noconvert(), "out"_a, "first"_a, "second"_a, "status"_a.noconvert(), "threads"_a, "memory"_a,
        "isa"_a);
}

}  // namespace pydln::bind
