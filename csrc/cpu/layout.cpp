#include "cpu/layout.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "math/cost.hpp"

namespace pydln::cpu {
namespace {

// Percent of the multiply-add probe, square networks of depth 3 and 4, float64 on AVX2 (Zen 3); float32 lies within a few
// percent of it, and the two curves cross at the same width.
struct Measured {
  double extent, interleaved, rows;
};
constexpr Measured kMeasured[] = {{1, 0.4, 0.1}, {2, 20, 0.8}, {4, 40, 5},   {8, 62, 18},  {12, 57, 36}, {16, 56, 44},
                                  {24, 58, 56},  {32, 61, 60}, {48, 56, 63}, {64, 51, 64}, {96, 50, 68}};

// The side of a square network whose products are on average as large as those of this chain.
double typical_extent(const Chain& chain) {
  const double layers = static_cast<double>(std::max<std::int64_t>(1, chain.depth - 1));
  const double work = std::min(input_side_work(chain), output_side_work(chain)) / (3 * layers);
  return chain.depth > 1 ? std::cbrt(work) : std::sqrt(static_cast<double>(chain.widths[0] * chain.widths[1]));
}

}  // namespace

Rates expected_rates(const Chain& chain, std::int64_t batch, std::int64_t lanes) {
  const double extent = typical_extent(chain);
  const Measured* above =
      std::find_if(std::begin(kMeasured), std::end(kMeasured), [=](const Measured& m) { return m.extent >= extent; });
  Measured at = kMeasured[std::size(kMeasured) - 1];
  if (above == std::begin(kMeasured)) {
    at = *above;
  } else if (above != std::end(kMeasured)) {
    const Measured &low = above[-1], &high = *above;
    const double x = std::log(extent / low.extent) / std::log(high.extent / low.extent);
    at = {extent, low.interleaved + x * (high.interleaved - low.interleaved), low.rows + x * (high.rows - low.rows)};
  }
  const std::int64_t groups = (batch + lanes - 1) / lanes;
  return {0.01 * at.interleaved * static_cast<double>(batch) / static_cast<double>(groups * lanes), 0.01 * at.rows};
}

Layout choose_layout(const std::string& name, const Chain& chain, std::int64_t batch, std::int64_t lanes) {
  if (name == "interleaved") return Layout::interleaved;
  if (name == "rows") return Layout::rows;
  if (name != "auto") throw std::invalid_argument("layout: expected auto, interleaved or rows, got " + name);
  const Rates rates = expected_rates(chain, batch, lanes);
  return rates.interleaved >= rates.rows ? Layout::interleaved : Layout::rows;
}

}  // namespace pydln::cpu
