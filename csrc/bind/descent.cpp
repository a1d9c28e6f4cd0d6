#include "bind/descent.hpp"

#include <pybind11/stl.h>

#include "bind/noise.hpp"
#include "bind/poll.hpp"
#include "bind/training.hpp"
#include "cpu/descent.hpp"
#include "cpu/layout.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run. Everything else comes back in the arrays handed in.
template <class T>
bool descent(const py::list& weights, const Dict& task, const py::object& test, const py::object& root,
             const py::object& lr, const py::object& momentum, const py::object& decay, bool nesterov,
             const py::object& noise, std::int64_t steps, const Dict& stop, const py::array& record_at,
             const Dict& records, const py::object& status, const py::object& stopped_at, int threads,
             const py::object& memory, const std::string& isa, const std::string& layout, const py::object& tick) {
  const Layers<T> given(weights);
  const std::int64_t batch = given.batch, in = given.widths.front(), out = given.widths.back();

  ops::Descent<T> op;
  set_training(op, given, task, stop, status);
  op.root = per_member<T>(root, "root", batch, {in, in});
  if (!noise.is_none()) op.noise = noise_of<T>(noise.cast<Dict>(), batch, out, in);
  for (const auto& p : {op.root, op.noise.root, op.noise.labels}) op.task_per_member |= p.stride != 0;

  op.lr = per_member<T>(lr, "lr", batch, {});
  op.momentum = per_member<T>(momentum, "momentum", batch, {});
  op.decay = per_member<T>(decay, "weight_decay", batch, {});
  expect_steps(steps, batch);
  op.nesterov = nesterov;
  op.steps = steps;

  set_schedule(op, record_at);
  std::vector<T*> layer_records;
  set_recording(op, given, test, records, op.records, layer_records);
  op.kernel_distance = output<T>(records["kernel_distance"], "kernel_distance", {batch, op.records});
  if (op.kernel_distance && !op.root && !op.train.plain())
    throw py::value_error("kernel_distance: expected the root of sigma_xx");
  op.stopped_at = needed_output<std::int64_t>(stopped_at, "stopped_at", {batch});

  if (!op.lr) throw py::value_error("descent: incomplete");

  const cpu::Isa& chosen = cpu::isa_named(isa);
  const Layout arrangement = cpu::choose_layout(layout, op.chain, batch, chosen.vectors<T>());
  return polled(tick, steps * batch, [&](Control& control, const auto& poll) {
    cpu::run<T>(op, chosen, arrangement, threads, free_bytes(memory), control, poll);
  });
}

// Widths of networks that there may be: their squares are counted in 64 bits.
void expect_widths(const Shape& widths) {
  if (widths.size() < 2) throw py::value_error("widths: expected two or more");
  for (const std::int64_t width : widths)
    if (width < 1 || width > 16777216) throw py::value_error("widths: expected integers within 1 ... 2^24");
}

// How the kernel would run `batch` networks of these widths: what pydln.plan tells.
template <class T>
py::dict plan(const Shape& widths, std::int64_t batch, bool whitened, const std::string& isa,
              const std::string& layout) {
  expect_widths(widths);
  expect_some(batch, "batch");
  ops::Descent<T> op;
  op.chain = {static_cast<std::int64_t>(widths.size()) - 1, widths.data()};
  op.batch = batch;
  const T there{};  // of the task only what is there is looked at
  op.train.target = {&there, 0};
  op.train.columns = widths.front();
  if (!whitened) {
    op.train.map = op.train.target;
    op.squares = op.train;
  }
  const cpu::Isa& set = cpu::isa_named(isa);
  const cpu::Vectors vectors = set.vectors<T>();
  const cpu::Rates rates = cpu::expected_rates(op.chain, batch, vectors);
  const Layout chosen = cpu::choose_layout(layout, op.chain, batch, vectors);
  const DescentBody<T> body = set.body(op, chosen);
  double weights = 0;
  for (std::int64_t l = 0; l < op.chain.depth; ++l)
    weights += static_cast<double>(widths[static_cast<std::size_t>(l)] * widths[static_cast<std::size_t>(l) + 1]);
  using namespace py::literals;
  return py::dict("layout"_a = chosen == Layout::rows ? "rows" : "interleaved", "members"_a = body.members,
                  "lanes"_a = vectors.lanes, "carried"_a = cpu::carries_inputs(op.chain) ? "inputs" : "outputs",
                  "flops"_a = cpu::step_flops(op.chain, whitened), "bytes"_a = 3 * sizeof(T) * weights,
                  "workspace"_a = body.workspace(op),
                  "expected"_a = py::dict("interleaved"_a = rates.interleaved, "rows"_a = rates.rows));
}

template <class T>
void add(py::module_& m, const char* name) {
  using namespace py::literals;
  m.def(name, &descent<T>, "weights"_a.noconvert(), "task"_a, "test"_a, "root"_a, "lr"_a, "momentum"_a, "decay"_a,
        "nesterov"_a, "noise"_a, "steps"_a, "stop"_a, "record_at"_a.noconvert(), "records"_a, "status"_a,
        "stopped_at"_a, "threads"_a, "memory"_a, "isa"_a, "layout"_a, "tick"_a);
}

}  // namespace

void add_descent(py::module_& m) {
  add<double>(m, "descent_f64");
  add<float>(m, "descent_f32");
  m.def("plan_f64", &plan<double>);
  m.def("plan_f32", &plan<float>);
  m.def("step_flops", [](const Shape& widths, bool whitened) {
    expect_widths(widths);
    return cpu::step_flops({static_cast<std::int64_t>(widths.size()) - 1, widths.data()}, whitened);
  });
}

}  // namespace pydln::bind
