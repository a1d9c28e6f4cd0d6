#include "cpu/descent.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "cpu/parallel.hpp"
#include "math/cost.hpp"

namespace pydln::cpu {
namespace {

struct AlignedDelete {
  void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Block = std::unique_ptr<char[], AlignedDelete>;

Block aligned_block(std::size_t bytes) {
  return Block(static_cast<char*>(::operator new[](bytes, std::align_val_t{64})));
}

// Below this many floating-point operations (a few ms at the slowest) a call runs on the calling thread, unpolled.
constexpr double kInlineFlops = 5e6;

// Workspaces up to this many bytes are taken without asking how much memory is free.
constexpr std::size_t kUnasked = 64UL * 1024 * 1024;

}  // namespace

double step_flops(const Chain& chain, bool whitened) { return pydln::step_flops(chain, whitened); }

bool carries_inputs(const Chain& chain) { return carry_input_side(chain); }

template <class T>
void run(const ops::Descent<T>& op, const Isa& isa, Layout layout, int threads,
         const std::function<std::size_t()>& memory, Control& control, const std::function<void()>& poll) {
  const DescentBody<T> body = isa.descent<T>(layout, op.task_per_member);
  const double evaluations = static_cast<double>(op.steps) + 1;
  const double looks = static_cast<double>(op.records) + 1;
  const double recording = (op.drift ? drift_flops(op.chain) : 0) + (op.kernel_distance ? tangent_flops(op.chain) : 0);
  const double flops =
      static_cast<double>(op.batch) * (evaluations * (pydln::step_flops(op.chain, !op.train.sigma_xx) +
                                                      samples_flops(op.chain, static_cast<double>(op.noise.size))) +
                                       looks * recording);

  const std::int64_t groups = (op.batch + body.members - 1) / body.members;
  std::int64_t workers = std::min(static_cast<std::int64_t>(std::max(threads, 1)), groups);
  const std::size_t bytes = body.workspace(op);
  if (bytes > kUnasked / static_cast<std::size_t>(workers)) {
    const std::size_t free = memory();
    if (bytes > free)
      throw std::length_error("weights: the workspace of a network needs " + std::to_string(bytes / 1000000) +
                              " MB and " + std::to_string(free / 1000000) +
                              " MB of memory are free: expected smaller widths");
    workers = std::min(workers, static_cast<std::int64_t>(free / bytes));
  }

  if (flops < kInlineFlops) {
    const Block block = aligned_block(bytes);
    body.work(op, control, block.get());
    return;
  }
  std::vector<Block> blocks;
  blocks.reserve(static_cast<std::size_t>(workers));
  for (std::int64_t i = 0; i < workers; ++i) blocks.push_back(aligned_block(bytes));
  run_workers(
      static_cast<int>(workers), [&](int i) { body.work(op, control, blocks[static_cast<std::size_t>(i)].get()); },
      poll);
}

template void run(const ops::Descent<double>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);
template void run(const ops::Descent<float>&, const Isa&, Layout, int, const std::function<std::size_t()>&, Control&,
                  const std::function<void()>&);

}  // namespace pydln::cpu
