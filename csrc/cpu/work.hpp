// Runs the kernel of an operation: on how many workers, in what memory.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels/body.hpp"
#include "cpu/parallel.hpp"

namespace pydln::cpu {

struct AlignedDelete {
  void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Block = std::unique_ptr<char[], AlignedDelete>;

inline Block aligned_block(std::size_t bytes) {
  return Block(static_cast<char*>(::operator new[](bytes, std::align_val_t{64})));
}

// Below this many floating-point operations (a few ms at the slowest) a call runs on the calling thread, unpolled.
inline constexpr double kInlineFlops = 5e6;

// Workspaces up to this many bytes are taken without asking how much memory is free.
inline constexpr std::size_t kUnasked = std::size_t{64} * 1024 * 1024;

// `flops`: what the run takes, about. The rest as in cpu/descent.hpp.
template <class Op>
void run_body(const Body<Op>& body, const Op& op, double flops, int threads, const std::function<std::size_t()>& memory,
              Control& control, const std::function<void()>& poll) {
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

}  // namespace pydln::cpu
