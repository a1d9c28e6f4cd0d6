#include "bind/modes.hpp"

#include "bind/poll.hpp"
#include "bind/stepping.hpp"
#include "cpu/modes.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run. Everything else comes back in the arrays handed in.
bool modes(const py::array& layer_strengths, const py::array& s, const py::array& variances, const Dict& method,
           double rtol, double atol, double step, double max_step, std::int64_t max_steps, const py::array& record_at,
           const py::array& strengths, const py::object& status, const py::object& stopped_at,
           const py::object& accepted, const py::object& rejected, int threads, const py::object& memory,
           const std::string& isa, const py::object& tick) {
  if (layer_strengths.ndim() != 2 || strengths.ndim() != 3)
    throw py::value_error("modes: expected layer_strengths (batch, D) and strengths (networks, time, modes)");
  ops::Modes op;
  op.batch = layer_strengths.shape(0);
  op.depth = layer_strengths.shape(1);
  expect_some(op.batch, "layer_strengths");
  expect_some(op.depth, "layer_strengths");
  set_stepping(op, method, rtol, atol, step, max_step, max_steps, record_at, op.batch, stopped_at, accepted, rejected);
  op.together = strengths.shape(2);
  if (op.together < 1 || op.batch % op.together)
    throw py::value_error("modes: expected networks of as many modes as strengths has");
  op.layer_strengths = needed_input<double>(layer_strengths, "layer_strengths", {op.batch, op.depth});
  op.s = needed_input<double>(s, "s", {op.batch});
  op.variances = needed_input<double>(variances, "variances", {op.batch});
  op.strengths = needed_output<double>(strengths, "strengths", {op.batch / op.together, op.times, op.together});
  op.status = statuses(status, op.batch);

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(tick, op.times * op.batch, [&](Control& control, const auto& poll) {
    cpu::run(op, chosen, threads, free_bytes(memory), control, poll);
  });
}

}  // namespace

void add_modes(py::module_& m) {
  using namespace py::literals;
  m.def("modes_f64", &modes, "layer_strengths"_a.noconvert(), "s"_a.noconvert(), "variances"_a.noconvert(), "method"_a,
        "rtol"_a, "atol"_a, "step"_a, "max_step"_a, "max_steps"_a, "record_at"_a.noconvert(), "strengths"_a.noconvert(),
        "status"_a, "stopped_at"_a, "accepted"_a, "rejected"_a, "threads"_a, "memory"_a, "isa"_a, "tick"_a);
}

}  // namespace pydln::bind
