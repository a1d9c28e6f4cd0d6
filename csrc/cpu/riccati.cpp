#include "cpu/riccati.hpp"

#include "cpu/work.hpp"

namespace pydln::cpu {

void run(const ops::Riccati& op, const Isa& isa, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll) {
  // Some sixty steps of sixteen nodes, at each of which ten products of squares are formed, and the times.
  const auto n = static_cast<double>(op.cols), rows = static_cast<double>(op.rows);
  const double node = n * n * (2 * rows + 10 * n) + 20 * rows * n, time = n * n * (4 * rows + n) + 20 * rows * n;
  run_body(isa.riccati(), op, static_cast<double>(op.batch) * (960 * node + static_cast<double>(op.times) * time),
           threads, memory, control, poll);
}

}  // namespace pydln::cpu
