#include "cpu/two_layer_mode.hpp"

#include <algorithm>

#include "cpu/parallel.hpp"
#include "cpu/work.hpp"

namespace pydln::cpu {

void run(const ops::TwoLayerMode& op, const Isa& isa, int threads, Control& control,
         const std::function<void()>& poll) {
  constexpr double kPointFlops = 160, kModeFlops = 100;
  const double flops = static_cast<double>(op.modes) * (static_cast<double>(op.times) * kPointFlops + kModeFlops);
  if (op.modes == 0 || op.times == 0) return;
  if (flops < kInlineFlops) return isa.two_layer_mode(op, control);
  const int busy = static_cast<int>(std::min(flops / kInlineFlops, 1e6));  // that many have something to do
  run_workers(std::clamp(threads, 1, busy), [&](int) { isa.two_layer_mode(op, control); }, poll);
}

}  // namespace pydln::cpu
