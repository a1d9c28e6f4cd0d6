#include "cpu/descent.hpp"

#include "cpu/work.hpp"
#include "math/cost.hpp"

namespace pydln::cpu {

double step_flops(const Chain& chain, bool whitened) { return pydln::step_flops(chain, whitened); }

bool carries_inputs(const Chain& chain) { return carry_input_side(chain); }

template <class T>
void run(const ops::Descent<T>& op, const Isa& isa, Layout layout, int threads,
         const std::function<std::size_t()>& memory, Control& control, const std::function<void()>& poll) {
  const double evaluations = static_cast<double>(op.steps) + 1;
  const double looks = static_cast<double>(op.records) + 1;
  const double recording = (op.drift ? drift_flops(op.chain) : 0) + (op.kernel_distance ? tangent_flops(op.chain) : 0);
  const double flops =
      static_cast<double>(op.batch) * (evaluations * (pydln::step_flops(op.chain, !op.train.map) +
                                                      samples_flops(op.chain, static_cast<double>(op.noise.size))) +
                                       looks * recording);
  run_body(isa.body(op, layout), op, flops, threads, memory, control, poll);
}

template void run(const ops::Descent<double>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);
template void run(const ops::Descent<float>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);

}  // namespace pydln::cpu
