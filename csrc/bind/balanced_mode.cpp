#include "bind/balanced_mode.hpp"

#include "bind/array.hpp"
#include "bind/poll.hpp"
#include "cpu/balanced_mode.hpp"

namespace pydln::bind {
namespace {

ops::Branch branch(const Dict& given, const std::string& name, std::int64_t rows) {
  ops::Branch b;
  b.begin = given["begin"].cast<std::int64_t>();
  b.cells = given["cells"].cast<std::int64_t>();
  b.first = given["first"].cast<std::int64_t>();
  b.origin = given["origin"].cast<double>();
  b.direction = given["direction"].cast<double>();
  if (b.begin < 0 || b.cells < 1 || b.cells > rows - b.begin) throw py::value_error(name + ": no rows of the table");
  b.bounds = needed_input<double>(given["bounds"], name + ".bounds", {b.cells + 1});
  return b;
}

std::int64_t length(const py::array& a) { return static_cast<std::int64_t>(a.size()); }

// Returns whether Ctrl-C ended the run.
bool balanced_mode(const Dict& given, const py::object& which, const py::array& u0, const py::array& s,
                   const py::array& rate, const py::array& t, const py::array& u, const py::object& gap, int threads,
                   const std::string& isa) {
  ops::BalancedMode op;
  const auto rows = given["rows"].cast<py::array>();
  op.rows = length(rows) / ops::kRow;
  op.table = needed_input<double>(rows, "table.rows", {op.rows, ops::kRow});
  if (reinterpret_cast<std::uintptr_t>(op.table) % 64 != 0)
    throw py::value_error("table.rows: expected an array aligned to 64 bytes");
  op.early = branch(given["early"].cast<Dict>(), "table.early", op.rows);
  op.late = branch(given["late"].cast<Dict>(), "table.late", op.rows);
  op.middle = given["middle"].cast<double>();
  op.late_is_gap = given["late_is_gap"].cast<bool>();
  op.last = given["last"].cast<double>();

  const std::int64_t entries = length(u0);
  op.u0 = needed_input<double>(u0, "u0", {entries});
  op.s = needed_input<double>(s, "s", {entries});
  op.rate = needed_input<double>(rate, "rate", {entries});
  op.times = t.ndim() > 0 ? t.shape(t.ndim() - 1) : 0;
  const bool own = t.ndim() == 2;
  op.t = needed_input<double>(t, "t", own ? Shape{entries, op.times} : Shape{op.times});
  op.t_stride = own ? op.times : 0;
  op.u = needed_output<double>(u, "u", {entries, op.times});
  op.gap = output<double>(gap, "gap", {entries, op.times});
  op.modes = entries;
  if (!which.is_none()) {
    op.modes = length(which.cast<py::array>());
    op.which = input<std::int64_t>(which, "which", {op.modes});
    for (std::int64_t i = 0; i < op.modes; ++i)
      if (op.which[i] < 0 || op.which[i] >= entries) throw py::value_error("which: expected entries of u0");
  }

  const cpu::Isa& chosen = cpu::isa_named(isa);
  return polled(py::none(), 0,
                [&](Control& control, const auto& poll) { cpu::run(op, chosen, threads, control, poll); });
}

}  // namespace

void add_balanced_mode(py::module_& m) {
  using namespace py::literals;
  m.def("balanced_mode", &balanced_mode, "table"_a, "which"_a, "u0"_a.noconvert(), "s"_a.noconvert(),
        "rate"_a.noconvert(), "t"_a.noconvert(), "u"_a.noconvert(), "gap"_a, "threads"_a, "isa"_a);
}

}  // namespace pydln::bind
