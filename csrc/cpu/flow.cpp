#include "cpu/flow.hpp"

#include "cpu/work.hpp"
#include "math/cost.hpp"

namespace pydln::cpu {

template <class T>
void run(const ops::Flow<T>& op, const Isa& isa, Layout layout, int threads, const std::function<std::size_t()>& memory,
         Control& control, const std::function<void()>& poll) {
  // How many steps there will be is not known: some tens, and one for every few records.
  const double steps = 50 + static_cast<double>(op.times) / 4;
  const double flops = static_cast<double>(op.batch * op.method.stages) * steps * step_flops(op.chain, !op.train.map);
  run_body(isa.body(op, layout), op, flops, threads, memory, control, poll);
}

template void run(const ops::Flow<double>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);
template void run(const ops::Flow<float>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);

}  // namespace pydln::cpu
