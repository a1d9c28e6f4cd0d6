#include "bind/flow.hpp"

#include <pybind11/stl.h>

#include <cmath>

#include "bind/poll.hpp"
#include "bind/training.hpp"
#include "cpu/flow.hpp"
#include "cpu/layout.hpp"

namespace pydln::bind {
namespace {

ops::Tableau tableau(const py::dict& given) {
  ops::Tableau t;
  t.stages = given["stages"].cast<std::int64_t>();
  t.extra = given["extra"].cast<std::int64_t>();
  t.errors = given["errors"].cast<std::int64_t>();
  t.powers = given["powers"].cast<std::int64_t>();
  t.exponent = given["exponent"].cast<double>();
  const std::int64_t all = t.stages + t.extra;
  if (t.stages < 2 || t.extra < 0 || all > ops::kMostStages || t.errors < 0 || t.errors > 2 || t.powers < 1 ||
      !(t.exponent > 0))
    throw py::value_error("method: incomplete");
  t.a = input<double>(given["a"], "method.a", {all, all});
  t.error = input<double>(given["error"], "method.error", {t.errors, t.stages});
  t.dense = input<double>(given["dense"], "method.dense", {all, t.powers});
  return t;
}

// Returns whether Ctrl-C ended the run. Everything else comes back in the arrays handed in.
template <class T>
bool flow(const py::list& weights, const py::dict& task, const py::dict& method, double rtol, double atol, double step,
          double max_step, std::int64_t max_steps, const py::array& record_at, const py::dict& stop,
          const py::object& weight_records, const py::object& status, const py::object& stopped_at,
          const py::object& accepted, const py::object& rejected, int threads, const py::object& memory,
          const std::string& isa, const std::string& layout, const py::object& tick) {
  const Layers<T> given(weights);
  const std::int64_t batch = given.batch;
  ops::Flow<T> op;
  set_training(op, given, task, stop, status);
  op.method = tableau(method);
  op.rtol = rtol;
  op.atol = atol;
  op.step = step;
  op.max_step = max_step;
  op.max_steps = max_steps;
  op.times = record_at.size();
  op.record_at = input<double>(record_at, "record_at", {op.times});
  if (op.times < 1) throw py::value_error("record_at: expected a time");
  for (std::int64_t k = 0; k < op.times; ++k)
    if (!(op.record_at[k] >= 0) || !std::isfinite(op.record_at[k]) || (k && !(op.record_at[k] > op.record_at[k - 1])))
      throw py::value_error("record_at: expected increasing times >= 0");
  const auto records = layers<T>(weight_records, "weight_records", given.widths, {batch, op.times});
  op.weight_records = records.data();
  op.stopped_at = output<double>(stopped_at, "stopped_at", {batch});
  op.accepted = output<std::int64_t>(accepted, "accepted", {batch});
  op.rejected = output<std::int64_t>(rejected, "rejected", {batch});
  if (records.empty() || !op.stopped_at || !op.accepted || !op.rejected || (op.method.errors == 0 && !(step > 0)))
    throw py::value_error("flow: incomplete");

  const cpu::Isa& chosen = cpu::isa_named(isa);
  const Layout arrangement = cpu::choose_layout(layout, op.chain, batch, chosen.vectors<T>());
  const auto free_memory = [&] {
    const py::gil_scoped_acquire gil;
    const py::object bytes = memory();
    return bytes.is_none() ? SIZE_MAX : bytes.cast<std::size_t>();
  };
  Control control;
  Poll poll(control, tick, op.times * batch);
  {
    const py::gil_scoped_release release;
    cpu::run<T>(op, chosen, arrangement, threads, free_memory, control, [&] { poll(); });
  }
  return poll.interrupted();
}

template <class T>
void add(py::module_& m, const char* name) {
  using namespace py::literals;
  m.def(name, &flow<T>, "weights"_a.noconvert(), "task"_a, "method"_a, "rtol"_a, "atol"_a, "step"_a, "max_step"_a,
        "max_steps"_a, "record_at"_a.noconvert(), "stop"_a, "weight_records"_a, "status"_a, "stopped_at"_a,
        "accepted"_a, "rejected"_a, "threads"_a, "memory"_a, "isa"_a, "layout"_a, "tick"_a);
}

}  // namespace

void add_flow(py::module_& m) {
  add<double>(m, "flow_f64");
  add<float>(m, "flow_f32");
}

}  // namespace pydln::bind
