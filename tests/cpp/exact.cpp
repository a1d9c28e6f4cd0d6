// One step on whole numbers has no rounding: every kernel must give exactly what triple loops give, over all remainders
// of register blocks and vectors.
#include <algorithm>

#include "check.hpp"
#include "problem.hpp"

namespace {

using problem::Naive;
using problem::Options;
using problem::Problem;
using problem::Random;

std::int64_t compared = 0;

// Sums whose terms are whole; those too large for 53 bits are left to the tests with tolerances.
bool equal(double got, double wanted) {
  if (std::abs(wanted) > 1e12) return true;
  ++compared;
  return got == wanted;
}

// Every number of the run is whole, or a half, and below 2^24, so that float32 holds it.
template <class T>
void compare(const std::vector<std::int64_t>& widths, std::int64_t batch, Options options) {
  Random random(static_cast<std::uint64_t>(widths.size() * 1000 + static_cast<std::size_t>(widths[0])));
  Problem<T> p(widths, batch, 1, {0, 1}, options, [&] { return random.integer(-2, 2); });
  const std::int64_t D = p.op.chain.depth;
  std::vector<Naive<T>> before, after;
  for (std::int64_t i = 0; i < batch; ++i) {
    before.emplace_back(p, i);
    after.emplace_back(p, i);
    after.back().step();
  }
  problem::each_kernel([&](const pydln::cpu::Isa& isa, pydln::Layout layout) {
    p.rewind();
    problem::run(p, isa, layout);
    bool weights = true, products = true, strengths = true, sums = true;
    for (std::int64_t i = 0; i < batch; ++i) {
      CHECK(p.status[static_cast<std::size_t>(i)] == pydln::Status::completed);
      CHECK(p.stopped_at[static_cast<std::size_t>(i)] == 1);
      for (std::int64_t l = 0; l < D; ++l) {
        const auto& w = after[static_cast<std::size_t>(i)].layers[static_cast<std::size_t>(l)].x;
        const auto size = static_cast<std::int64_t>(w.size());
        const T* got = p.weights[static_cast<std::size_t>(l)].data() + i * size;
        for (std::int64_t q = 0; q < size; ++q)
          weights &= static_cast<double>(got[q]) == w[static_cast<std::size_t>(q)];
      }
      if (!p.op.product) continue;
      for (std::int64_t k = 0; k < 2; ++k) {
        const Naive<T>& now = (k == 0 ? before : after)[static_cast<std::size_t>(i)];
        const std::int64_t at = i * 2 + k;
        if (k == 1 && sizeof(T) == 4) continue;  // the second product no longer fits
        const auto omega = now.product();
        for (std::size_t q = 0; q < omega.x.size(); ++q)
          products &=
              static_cast<double>(p.op.product[static_cast<std::size_t>(at) * omega.x.size() + q]) == omega.x[q];
        for (std::int64_t a = 0; a < p.op.modes; ++a)
          strengths &= static_cast<double>(p.op.strengths[at * p.op.modes + a]) == now.strength(a);
        if (sizeof(T) == 4) continue;
        sums &= equal(p.op.loss[at], now.loss());
        if (p.op.test_loss) sums &= equal(p.op.test_loss[at], now.test_loss());
        for (std::int64_t l = 0; l < D; ++l) sums &= equal(p.op.layer_norms[at * D + l], now.layer_norm(l));
        for (std::int64_t l = 0; l + 1 < D; ++l) sums &= equal(p.op.drift[at * (D - 1) + l], now.drift(l));
      }
    }
    CHECK(weights);
    CHECK(products);
    CHECK(strengths);
    CHECK(sums);
    CHECK(p.guards_stand());
    if (!weights || !products || !strengths || !sums) {
      std::printf("  in %s, %s, %zu-byte numbers, widths", isa.name.c_str(),
                  layout == pydln::Layout::rows ? "rows" : "interleaved", sizeof(T));
      for (const std::int64_t n : widths) std::printf(" %lld", static_cast<long long>(n));
      std::printf(", batch %lld, whitened %d, per member %d, general %d\n", static_cast<long long>(batch),
                  options.whitened, options.task_per_member, options.general);
    }
  });
}

void compare_all(const std::vector<std::int64_t>& widths, std::int64_t batch, Options options) {
  compare<double>(widths, batch, options);
  compare<float>(widths, batch, options);
}

}  // namespace

int main() {
  // M, N and K of every product over all remainders of blocks up to 8 and vectors up to 16.
  const std::vector<std::int64_t> sizes{1, 2, 3, 4, 5, 6, 7, 8, 9, 17};
  std::int64_t shape = 0;
  for (const std::int64_t a : sizes)
    for (const std::int64_t b : sizes)
      for (const std::int64_t c : sizes) {
        Options options;
        options.whitened = shape % 2 == 0;
        options.general = shape % 3 == 0;
        options.records = shape % 5 != 0;
        compare_all({a, b, c}, 1 + shape % 3, options);
        ++shape;
      }
  // Widths with a kernel of their own beyond these, and padded rows.
  for (const auto& widths : std::vector<std::vector<std::int64_t>>{
           {12, 12, 12}, {16, 16, 16}, {24, 24, 24}, {32, 32, 32}, {32, 16, 64}, {64, 32, 16}, {16, 64, 32}})
    compare_all(widths, 9, Options{});
  // Few rows above strips of several squares, and what is left of both: each number of rows has a kernel of its own.
  for (std::int64_t rows = 1; rows <= 13; ++rows)
    for (const auto& [inputs, hidden] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{64, 16}, {33, 35}, {50, 17}}) {
      Options options;
      options.whitened = rows % 2 == 0;
      options.records = options.whitened;  // sums over matrices of general inputs no longer fit
      compare_all({inputs, hidden, rows}, 1, options);
    }
  // Depths, batches that do not fill a vector, tasks of each member's own, every path.
  for (const auto& widths : std::vector<std::vector<std::int64_t>>{
           {1, 1}, {5, 3}, {1, 7}, {33, 2}, {2, 3, 2, 3}, {3, 5, 1, 2}, {4, 1, 1, 4}})
    for (const std::int64_t batch : {1, 2, 5, 9, 17})
      for (unsigned bits = 0; bits < 16; ++bits) compare_all(widths, batch, problem::options(bits));
  CHECK(compared > 50'000);
  return check::result();
}
