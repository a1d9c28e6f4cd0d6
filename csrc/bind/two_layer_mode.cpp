#include "bind/two_layer_mode.hpp"

#include "bind/array.hpp"
#include "bind/poll.hpp"
#include "cpu/two_layer_mode.hpp"

namespace pydln::bind {
namespace {

// Returns whether Ctrl-C ended the run.
bool two_layer_mode(const py::array& a0, const py::array& b0, const py::array& s, const py::array& t,
                    const py::array& a, const py::array& b, const py::object& gap, int threads,
                    const std::string& isa) {
  ops::TwoLayerMode op;
  op.modes = static_cast<std::int64_t>(a0.size());
  op.a0 = input<double>(a0, "a0", {op.modes});
  op.b0 = input<double>(b0, "b0", {op.modes});
  op.s = input<double>(s, "s", {op.modes});
  op.times = t.ndim() > 0 ? t.shape(t.ndim() - 1) : 0;
  const bool own = t.ndim() == 2;
  op.t = input<double>(t, "t", own ? Shape{op.modes, op.times} : Shape{op.times});
  op.t_stride = own ? op.times : 0;
  op.a = output<double>(a, "a", {op.modes, op.times});
  op.b = output<double>(b, "b", {op.modes, op.times});
  op.gap = output<double>(gap, "gap", {op.modes, op.times});

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(py::none(), 0,
                [&](Control& control, const auto& poll) { cpu::run(op, chosen, threads, control, poll); });
}

}  // namespace

void add_two_layer_mode(py::module_& m) {
  using namespace py::literals;
  m.def("two_layer_mode", &two_layer_mode, "a0"_a.noconvert(), "b0"_a.noconvert(), "s"_a.noconvert(), "t"_a.noconvert(),
        "a"_a.noconvert(), "b"_a.noconvert(), "gap"_a, "threads"_a, "isa"_a);
}

}  // namespace pydln::bind
