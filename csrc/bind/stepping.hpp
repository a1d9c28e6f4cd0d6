// What the operations that integrate in time have in common: method, tolerances and times out of Python.
#pragma once

#include <cmath>

#include "bind/array.hpp"
#include "ops/stepping.hpp"

namespace pydln::bind {

inline ops::Tableau tableau(const Dict& given) {
  ops::Tableau t;
  t.stages = given["stages"].cast<std::int64_t>();
  t.extra = given["extra"].cast<std::int64_t>();
  t.errors = given["errors"].cast<std::int64_t>();
  t.powers = given["powers"].cast<std::int64_t>();
  t.exponent = given["exponent"].cast<double>();
  t.growth = given["growth"].cast<double>();
  if (t.stages < 3 || t.stages > ops::kMostStages || t.extra < 0 || t.extra > ops::kMostStages - t.stages ||
      t.errors < 0 || t.errors > 2 || t.powers < 1 || t.powers > ops::kMostStages || !(t.exponent > 0) ||
      !(t.growth > 0))
    throw py::value_error("method: incomplete");
  const std::int64_t all = t.stages + t.extra;
  t.a = needed_input<double>(given["a"], "method.a", {all, all});
  t.error = needed_input<double>(given["error"], "method.error", {t.errors, t.stages});
  t.dense = needed_input<double>(given["dense"], "method.dense", {all, t.powers});
  return t;
}

inline void set_stepping(ops::Stepping& op, const Dict& method, double rtol, double atol, double step, double max_step,
                         std::int64_t max_steps, const py::array& record_at, std::int64_t batch,
                         const py::object& stopped_at, const py::object& accepted, const py::object& rejected) {
  op.method = tableau(method);
  op.rtol = rtol;
  op.atol = atol;
  op.step = step;
  op.max_step = max_step;
  op.max_steps = max_steps;
  op.times = record_at.size();
  op.record_at = needed_input<double>(record_at, "record_at", {op.times});
  expect_some(op.times, "record_at");
  for (std::int64_t k = 0; k < op.times; ++k)
    if (!(op.record_at[k] >= 0) || !std::isfinite(op.record_at[k]) || (k && !(op.record_at[k] > op.record_at[k - 1])))
      throw py::value_error("record_at: expected increasing times >= 0");
  op.stopped_at = needed_output<double>(stopped_at, "stopped_at", {batch});
  op.accepted = needed_output<std::int64_t>(accepted, "accepted", {batch});
  op.rejected = needed_output<std::int64_t>(rejected, "rejected", {batch});
  if (op.method.errors == 0 && !(step > 0)) throw py::value_error("step: expected a number > 0 of fixed steps");
}

}  // namespace pydln::bind
