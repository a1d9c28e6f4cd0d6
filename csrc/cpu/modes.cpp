#include "cpu/modes.hpp"

#include <algorithm>
#include <limits>

#include "cpu/work.hpp"

namespace pydln::cpu {

void run(const ops::Modes& op, const Isa& isa, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll) {
  // How many steps there will be is not known: some tens. A stage is some products and sums, and a root that takes as long.
  const double flops = static_cast<double>(op.batch) * (50.0 * static_cast<double>(op.method.stages * (op.depth + 20)) +
                                                        static_cast<double>(op.times * (op.depth + 20)));
  run_body(isa.modes(), op, flops, threads, memory, control, poll);
  // Modes that nobody took, the run being cancelled.
  const std::int64_t of_one = op.times * op.together;
  for (std::int64_t mode = std::min(control.next_member, op.batch); mode < op.batch; ++mode)
    for (std::int64_t k = 0; k < op.times; ++k)
      op.strengths[mode / op.together * of_one + k * op.together + mode % op.together] =
          std::numeric_limits<double>::quiet_NaN();
}

}  // namespace pydln::cpu
