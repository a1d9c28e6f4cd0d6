#include "cpu/graded_values.hpp"

#include "cpu/work.hpp"

namespace pydln::cpu {

void run(const ops::GradedValues& op, const Isa& isa, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll) {
  // Some seven sweeps over all pairs of rows, each a product and a rotation.
  const auto m = static_cast<double>(op.rows), n = static_cast<double>(op.cols);
  run_body(isa.graded_values(), op, static_cast<double>(op.batch) * 28 * m * m * n, threads, memory, control, poll);
}

}  // namespace pydln::cpu
