#include "bind/flow.hpp"

#include <pybind11/stl.h>

#include "bind/poll.hpp"
#include "bind/stepping.hpp"
#include "bind/training.hpp"
#include "cpu/flow.hpp"
#include "cpu/layout.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run. Everything else comes back in the arrays handed in.
template <class T>
bool flow(const py::list& weights, const Dict& task, const py::object& test, const Dict& method, double rtol,
          double atol, double step, double max_step, std::int64_t max_steps, const py::array& record_at,
          const Dict& stop, const Dict& records, const py::object& status, const py::object& stopped_at,
          const py::object& accepted, const py::object& rejected, int threads, const py::object& memory,
          const std::string& isa, const std::string& layout, const py::object& tick) {
  const Layers<T> given(weights);
  const std::int64_t batch = given.batch;
  ops::Flow<T> op;
  set_training(op, given, task, stop, status);
  set_stepping(op, method, rtol, atol, step, max_step, max_steps, record_at, batch, stopped_at, accepted, rejected);
  std::vector<T*> layer_records;
  set_recording(op, given, test, records, op.times, layer_records);

  const cpu::Isa& chosen = cpu::isa_named(isa);
  const Layout arrangement = cpu::choose_layout(layout, op.chain, batch, chosen.vectors<T>());
  return polled(tick, op.times * batch, [&](Control& control, const auto& poll) {
    cpu::run<T>(op, chosen, arrangement, threads, free_bytes(memory), control, poll);
  });
}

template <class T>
void add(py::module_& m, const char* name) {
  using namespace py::literals;
  m.def(name, &flow<T>, "weights"_a.noconvert(), "task"_a, "test"_a, "method"_a, "rtol"_a, "atol"_a, "step"_a,
        "max_step"_a, "max_steps"_a, "record_at"_a.noconvert(), "stop"_a, "records"_a, "status"_a, "stopped_at"_a,
        "accepted"_a, "rejected"_a, "threads"_a, "memory"_a, "isa"_a, "layout"_a, "tick"_a);
}

}  // namespace

void add_flow(py::module_& m) {
  add<double>(m, "flow_f64");
  add<float>(m, "flow_f32");
}

}  // namespace pydln::bind
