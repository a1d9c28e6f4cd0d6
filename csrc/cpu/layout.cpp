#include "cpu/layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include "math/cost.hpp"

namespace pydln::cpu {
namespace {

// Percent of the multiply-add probe, square networks of depth 3 and 4.
struct Measured {
  double extent, interleaved, rows;
};
using Table = std::array<Measured, 11>;
// Vectors of 32 bytes and less: float64 on AVX2 (Zen 3); float32 lies within a few percent of it, and the two curves cross
// at the same width.
constexpr Table kNarrow = {{{1, 0.4, 0.1},
                            {2, 20, 0.8},
                            {4, 40, 5},
                            {8, 62, 18},
                            {12, 57, 36},
                            {16, 56, 44},
                            {24, 58, 56},
                            {32, 61, 60},
                            {48, 56, 63},
                            {64, 51, 64},
                            {96, 50, 68}}};
// AVX-512 (Zen 5): float64 and float32, whose rows are half as many vectors. Interleaved matrices of 32 and 64 columns have
// rows of 2 and 4 KiB, which share few cache sets.
constexpr Table kWide64 = {{{1, 0.4, 0.1},
                            {2, 20, 0.8},
                            {4, 46, 5},
                            {8, 58, 22},
                            {12, 61, 35},
                            {16, 66, 57},
                            {24, 65, 70},
                            {32, 55, 76},
                            {48, 65, 82},
                            {64, 55, 85},
                            {96, 60, 88}}};
constexpr Table kWide32 = {{{1, 0.4, 0.05},
                            {2, 20, 0.4},
                            {4, 39, 3},
                            {8, 47, 11},
                            {12, 61, 24},
                            {16, 60, 40},
                            {24, 62, 49},
                            {32, 53, 71},
                            {48, 62, 80},
                            {64, 52, 83},
                            {96, 58, 88}}};

const Table& table_of(Vectors vectors) {
  if (vectors.bytes < 64) return kNarrow;
  return vectors.bytes == 8 * vectors.lanes ? kWide64 : kWide32;
}

// The side of a square network whose products are on average as large as those of this chain.
double typical_extent(const Chain& chain) {
  const double layers = static_cast<double>(std::max<std::int64_t>(1, chain.depth - 1));
  const double work = std::min(input_side_work(chain), output_side_work(chain)) / (3 * layers);
  return chain.depth > 1 ? std::cbrt(work) : std::sqrt(static_cast<double>(chain.widths[0] * chain.widths[1]));
}

}  // namespace

Rates expected_rates(const Chain& chain, std::int64_t batch, Vectors vectors) {
  const Table& table = table_of(vectors);
  const double extent = typical_extent(chain);
  const auto* const above =
      std::find_if(table.begin(), table.end(), [=](const Measured& m) { return m.extent >= extent; });
  Measured at = table.back();
  if (above == table.begin()) {
    at = *above;
  } else if (above != table.end()) {
    const Measured &low = above[-1], &high = *above;
    const double x = std::log(extent / low.extent) / std::log(high.extent / low.extent);
    at = {extent, low.interleaved + x * (high.interleaved - low.interleaved), low.rows + x * (high.rows - low.rows)};
  }
  const std::int64_t lanes = vectors.lanes, groups = (batch + lanes - 1) / lanes;
  return {0.01 * at.interleaved * static_cast<double>(batch) / static_cast<double>(groups * lanes), 0.01 * at.rows};
}

Layout choose_layout(const std::string& name, const Chain& chain, std::int64_t batch, Vectors vectors) {
  if (name == "interleaved") return Layout::interleaved;
  if (name == "rows") return Layout::rows;
  if (name != "auto") throw std::invalid_argument("layout: expected auto, interleaved or rows, got " + name);
  const Rates rates = expected_rates(chain, batch, vectors);
  return rates.interleaved >= rates.rows ? Layout::interleaved : Layout::rows;
}

}  // namespace pydln::cpu
