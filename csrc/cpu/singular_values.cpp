#include "cpu/singular_values.hpp"

#include <algorithm>

#include "cpu/work.hpp"

namespace pydln::cpu {

void run(const ops::SingularValues& op, const Isa& isa, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll) {
  // Reduction, and some four steps of dqds a value, each of a dozen operations in a chain for every row.
  const auto m = static_cast<double>(std::max(op.rows, op.cols)), n = static_cast<double>(std::min(op.rows, op.cols));
  const double flops = static_cast<double>(op.batch) * (4 * m * n * n + 100 * n * n);
  run_body(isa.singular_values(), op, flops, threads, memory, control, poll);
}

}  // namespace pydln::cpu
