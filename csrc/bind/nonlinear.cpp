#include "bind/nonlinear.hpp"

#include "bind/noise.hpp"
#include "bind/poll.hpp"
#include "bind/training.hpp"
#include "cpu/layout.hpp"
#include "cpu/nonlinear.hpp"

namespace pydln::bind {
namespace {

ops::Activation activation_of(std::int64_t number) {
  if (number < 0 || number > static_cast<std::int64_t>(ops::Activation::softplus))
    throw py::value_error("activation: expected one that the kernel knows");
  return static_cast<ops::Activation>(number);
}

template <class T>
ops::Samples<T> samples_of(const Dict& given, const std::string& name, std::int64_t batch, std::int64_t out,
                           std::int64_t in) {
  ops::Samples<T> s;
  s.count = given["count"].cast<std::int64_t>();
  expect_some(s.count, name);
  s.x = per_member<T>(given["x"], name + ".x", batch, {s.count, in});
  s.y = per_member<T>(given["y"], name + ".y", batch, {s.count, out});
  s.scale = given["scale"].template cast<T>();
  if (!s.x || !s.y) throw py::value_error(name + ": incomplete");
  return s;
}

// Returns whether Ctrl-C ended the run. Everything else comes back in the arrays handed in.
template <class T>
bool nonlinear(const py::list& weights, std::int64_t activation, const Dict& train, const py::object& test,
               const Dict& modes, const py::object& lr, const py::object& noise, std::int64_t steps, const Dict& stop,
               const py::array& record_at, const Dict& records, const py::object& status, const py::object& stopped_at,
               int threads, const py::object& memory, const std::string& isa, const std::string& layout,
               const py::object& tick) {
  const Layers<T> given(weights);
  const Shape& widths = given.widths;
  const std::int64_t batch = given.batch, in = widths.front(), out = widths.back();
  const std::int64_t depth = static_cast<std::int64_t>(widths.size()) - 1;

  ops::Nonlinear<T> op;
  op.chain = {depth, widths.data()};
  op.batch = batch;
  op.weights = given.pointers.data();
  op.activation = activation_of(activation);
  op.train = samples_of<T>(train, "train", batch, out, in);
  if (!test.is_none()) op.test = samples_of<T>(test.cast<Dict>(), "test", batch, out, in);
  op.modes = modes["count"].cast<std::int64_t>();
  op.mode_u = per_member<T>(modes["u"], "modes.u", batch, {out, op.modes});
  op.mode_x = per_member<T>(modes["x"], "modes.x", batch, {op.train.count, op.modes});
  for (const auto& p : {op.train.x, op.train.y, op.test.x, op.test.y, op.mode_u, op.mode_x})
    op.samples_per_member |= p.stride != 0;
  op.lr = per_member<T>(lr, "lr", batch, {});
  if (!noise.is_none()) op.noise = noise_of<T>(noise.cast<Dict>(), batch, out, in);
  if (op.noise.kind != ops::NoiseKind::none && op.noise.kind != ops::NoiseKind::minibatch)
    throw py::value_error("noise: expected a minibatch or none");
  expect_steps(steps, batch);
  op.steps = steps;
  set_stop(op, stop);
  set_schedule(op, record_at);
  const std::int64_t times = op.records;
  op.loss = output<T>(records["loss"], "loss", {batch, times});
  op.test_loss = output<T>(records["test_loss"], "test_loss", {batch, times});
  op.strengths = output<T>(records["strengths"], "strengths", {batch, times, op.modes});
  op.layer_norms = output<T>(records["layer_norms"], "layer_norms", {batch, times, depth});
  op.drift = output<T>(records["drift"], "drift", {batch, times, depth - 1});
  const auto weight_records = layers<T>(records["weights"], "weights", widths, {batch, times});
  op.weight_records = weight_records.empty() ? nullptr : weight_records.data();
  op.status = statuses(status, batch);
  op.stopped_at = needed_output<std::int64_t>(stopped_at, "stopped_at", {batch});
  if (!op.lr || !op.mode_u || !op.mode_x || (op.test_loss && !op.test.x))
    throw py::value_error("nonlinear: incomplete");

  const cpu::Isa& chosen = cpu::isa_named(isa);
  const Layout arrangement = cpu::choose_layout_on_samples(layout, op.chain, batch, chosen.vectors<T>());
  return polled(tick, steps * batch, [&](Control& control, const auto& poll) {
    cpu::run<T>(op, chosen, arrangement, threads, free_bytes(memory), control, poll);
  });
}

// phi and phi' as the kernels compute them.
template <class T>
void activate(std::int64_t activation, const py::array& x, const py::object& value, const py::object& derivative,
              const std::string& isa) {
  const std::int64_t count = x.size();
  cpu::isa_named(isa).kernels<T>().activate(activation_of(activation), needed_input<T>(x, "x", {count}),
                                            needed_output<T>(value, "value", {count}),
                                            needed_output<T>(derivative, "derivative", {count}), count);
}

template <class T>
void add(py::module_& m, const char* train, const char* apply) {
  using namespace py::literals;
  m.def(train, &nonlinear<T>, "weights"_a.noconvert(), "activation"_a, "train"_a, "test"_a, "modes"_a, "lr"_a,
        "noise"_a, "steps"_a, "stop"_a, "record_at"_a.noconvert(), "records"_a, "status"_a, "stopped_at"_a, "threads"_a,
        "memory"_a, "isa"_a, "layout"_a, "tick"_a);
  m.def(apply, &activate<T>, "activation"_a, "x"_a.noconvert(), "value"_a, "derivative"_a, "isa"_a);
}

}  // namespace

void add_nonlinear(py::module_& m) {
  add<double>(m, "nonlinear_f64", "activate_f64");
  add<float>(m, "nonlinear_f32", "activate_f32");
}

}  // namespace pydln::bind
