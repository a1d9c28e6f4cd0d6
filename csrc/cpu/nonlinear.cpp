#include "cpu/nonlinear.hpp"

#include "cpu/work.hpp"
#include "math/cost.hpp"

namespace pydln::cpu {

template <class T>
void run(const ops::Nonlinear<T>& op, const Isa& isa, Layout layout, int threads,
         const std::function<std::size_t()>& memory, Control& control, const std::function<void()>& poll) {
  const bool drawn = op.noise.kind == ops::NoiseKind::minibatch;
  const double seen = static_cast<double>(drawn ? op.noise.size : op.train.count);
  const double looks = static_cast<double>(op.records) + 1;
  const double passes = looks / 3 * static_cast<double>((drawn ? op.train.count : 0) + op.test.count);
  const double flops =
      static_cast<double>(op.batch) * (nonlinear_flops(op.chain, (static_cast<double>(op.steps) + 1) * seen + passes) +
                                       (op.drift ? looks * drift_flops(op.chain) : 0));
  run_body(isa.body(op, layout), op, flops, threads, memory, control, poll);
}

template void run(const ops::Nonlinear<double>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);
template void run(const ops::Nonlinear<float>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);

}  // namespace pydln::cpu
