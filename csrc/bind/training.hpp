// What the operations that train have in common: weights, task and limits out of Python.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "bind/array.hpp"
#include "ops/training.hpp"

namespace pydln::bind {

// D pointers out of a Python list of D arrays; empty for None.
template <class T>
std::vector<T*> layers(const py::handle& object, const std::string& name, const Shape& widths, const Shape& leading) {
  std::vector<T*> pointers;
  if (object.is_none()) return pointers;
  const auto list = py::reinterpret_borrow<py::sequence>(object);
  if (list.size() + 1 != widths.size()) throw py::value_error(name + ": expected one array per layer");
  for (std::size_t l = 0; l < list.size(); ++l) {
    Shape shape = leading;
    shape.push_back(widths[l + 1]);
    shape.push_back(widths[l]);
    pointers.push_back(needed_output<T>(list[l], name, shape));
  }
  return pointers;
}

// target - Omega map out of a dictionary that has these under such names; as many columns as the map has.
template <class T>
ops::Residual<T> residual(const Dict& task, const std::string& name, const char* map, const char* diagonal,
                          const char* target, std::int64_t batch, std::int64_t out, std::int64_t in) {
  ops::Residual<T> r;
  r.columns = in;
  const py::object matrix = task[map];
  if (py::isinstance<py::array>(matrix)) {
    const auto a = py::reinterpret_borrow<py::array>(matrix);
    if (a.ndim() > 1) r.columns = a.shape(a.ndim() - 1);
  }
  r.map = per_member<T>(matrix, name + "." + map, batch, {in, r.columns});
  r.diagonal = per_member<T>(task[diagonal], name + "." + diagonal, batch, {in});
  r.target = per_member<T>(task[target], name + "." + target, batch, {out, r.columns});
  if ((r.map && r.diagonal) || (!r.plain() && !r.target)) throw py::value_error(name + ": incomplete");
  return r;
}

// F of a task and its floor.
template <class T>
ops::Residual<T> squares(const Dict& task, const std::string& name, std::int64_t batch, std::int64_t out,
                         std::int64_t in, PerMember<const T>& floor) {
  floor = per_member<T>(task["floor"], name + ".floor", batch, {});
  if (!floor) throw py::value_error(name + ": incomplete");
  return residual<T>(task, name, "root", "deviations", "target", batch, out, in);
}

// Widths and batch, and pointers to the layers: they must outlive the operation.
template <class T>
struct Layers {
  Shape widths;
  std::int64_t batch = 0;
  std::vector<T*> pointers;

  explicit Layers(const py::list& weights) {
    for (const py::handle& w : weights) {
      if (!py::isinstance<py::array>(w)) throw py::type_error("weights: expected arrays");
      const auto a = py::reinterpret_borrow<py::array>(w);
      if (a.ndim() != 3) throw py::value_error("weights: expected arrays (batch, n_l, n_{l-1})");
      if (widths.empty()) {
        batch = a.shape(0);
        widths.push_back(a.shape(2));
      }
      widths.push_back(a.shape(1));
    }
    if (widths.size() < 2) throw py::value_error("weights: expected at least one layer");
    expect_some(batch, "weights");
    for (const std::int64_t width : widths) expect_some(width, "weights");
    pointers = layers<T>(weights, "weights", widths, {batch});
  }
};

// Steps whose number times that of the members, which progress counts, is one of 64 bits.
inline void expect_steps(std::int64_t steps, std::int64_t batch) {
  if (steps < 0 || steps >= INT64_MAX / batch)
    throw py::value_error("steps: expected an integer >= 0 below 2^63 / batch");
}

// Steps at which things are recorded.
template <class Op>
void set_schedule(Op& op, const py::array& record_at) {
  op.records = record_at.size();
  op.record_at = needed_input<std::int64_t>(record_at, "record_at", {op.records});
  for (std::int64_t k = 0; k < op.records; ++k)
    if (op.record_at[k] < (k ? op.record_at[k - 1] + 1 : 0) || op.record_at[k] > op.steps)
      throw py::value_error("record_at: expected increasing steps within 0 ... steps");
}

// What is recorded, under the names of the package, at so many steps or times; `layer_records` takes the pointers to records of
// weights and must outlive the operation.
template <class T, class Op>
void set_recording(Op& op, const Layers<T>& given, const py::object& test, const Dict& records, std::int64_t times,
                   std::vector<T*>& layer_records) {
  const std::int64_t in = given.widths.front(), out = given.widths.back(), batch = op.batch, depth = op.chain.depth;
  if (!test.is_none()) {
    op.test = squares<T>(test.cast<Dict>(), "test", batch, out, in, op.test_floor);
    if (!op.test) throw py::value_error("test: incomplete");
  }
  op.task_per_member |= op.test.own();
  op.loss = output<T>(records["loss"], "loss", {batch, times});
  op.test_loss = output<T>(records["test_loss"], "test_loss", {batch, times});
  if (op.test_loss && !op.test) throw py::value_error("test_loss: the task has no test moments");
  op.strengths = output<T>(records["strengths"], "strengths", {batch, times, op.modes});
  op.product = output<T>(records["product"], "product", {batch, times, out, in});
  op.layer_norms = output<T>(records["layer_norms"], "layer_norms", {batch, times, depth});
  op.drift = output<T>(records["drift"], "drift", {batch, times, depth - 1});
  layer_records = layers<T>(records["weights"], "weights", given.widths, {batch, times});
  op.weight_records = layer_records.empty() ? nullptr : layer_records.data();
}

template <class Op>
void set_stop(Op& op, const Dict& stop) {
  using T = std::remove_const_t<std::remove_pointer_t<decltype(op.stop_loss.data)>>;
  op.stop_loss = per_member<T>(stop["loss"], "stop.loss", op.batch, {});
  op.stop_strengths = per_member<T>(stop["strengths"], "stop.strengths", op.batch, {op.modes});
  op.stop_steady = per_member<T>(stop["steady"], "stop.steady", op.batch, {});
}

template <class T>
void set_training(ops::Training<T>& op, const Layers<T>& given, const Dict& task, const Dict& stop,
                  const py::object& status) {
  const std::int64_t in = given.widths.front(), out = given.widths.back(), batch = given.batch;
  op.chain = {static_cast<std::int64_t>(given.widths.size()) - 1, given.widths.data()};
  op.batch = batch;
  op.weights = given.pointers.data();
  op.train = residual<T>(task, "task", "sigma_xx", "variances", "sigma_yx", batch, out, in);
  op.squares = squares<T>(task, "task", batch, out, in, op.floor);
  if (op.train.columns != in || !op.train || static_cast<bool>(op.squares) == op.train.plain())
    throw py::value_error("task: incomplete");
  op.modes = task["modes"].cast<std::int64_t>();
  op.mode_u = per_member<T>(task["mode_u"], "task.mode_u", batch, {out, op.modes});
  op.mode_v = per_member<T>(task["mode_v"], "task.mode_v", batch, {in, op.modes});
  op.task_per_member |= op.train.own() || op.squares.own() || op.mode_u.stride != 0 || op.mode_v.stride != 0;
  set_stop(op, stop);
  if (stop.contains("least_residual"))
    op.least_residual = per_member<T>(stop["least_residual"], "stop.least_residual", batch, {});
  op.status = statuses(status, batch);
  if (!op.mode_u || !op.mode_v) throw py::value_error("training: incomplete");
}

}  // namespace pydln::bind
