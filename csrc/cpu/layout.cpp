#include "cpu/layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <stdexcept>

#include "math/cost.hpp"

namespace pydln::cpu {
namespace {

// Percent of the multiply-add probe, mean of square networks of depth 3 and 4; loss at every tenth step. On Zen 4 but for kWhole.
struct Measured {
  double extent, interleaved, rows;
};
using Table = std::array<Measured, 11>;
// Vectors of 32 bytes and less: float64 on AVX2; float32 crosses at the same width.
constexpr Table kNarrow = {{{1, 4, 0.2},
                            {2, 23, 1.1},
                            {4, 77, 13},
                            {8, 85, 41},
                            {12, 90, 54},
                            {16, 90, 73},
                            {24, 90, 81},
                            {32, 88, 85},
                            {48, 86, 88},
                            {64, 87, 85},
                            {96, 80, 91}}};
// AVX-512 in halves: float64 and float32, whose rows are half as many vectors.
constexpr Table kHalves64 = {{{1, 6, 0.1},
                              {2, 31, 1.0},
                              {4, 73, 7},
                              {8, 84, 43},
                              {12, 87, 44},
                              {16, 89, 64},
                              {24, 91, 80},
                              {32, 93, 83},
                              {48, 93, 88},
                              {64, 92, 90},
                              {96, 90, 93}}};
constexpr Table kHalves32 = {{{1, 4, 0.1},
                              {2, 22, 0.4},
                              {4, 66, 2},
                              {8, 83, 15},
                              {12, 87, 36},
                              {16, 87, 57},
                              {24, 92, 56},
                              {32, 93, 82},
                              {48, 93, 88},
                              {64, 93, 91},
                              {96, 91, 93}}};
// The table whose last rows are these.
template <std::size_t N>
constexpr Table ending(Table table, const Measured (&last)[N]) {
  for (std::size_t i = 0; i < N; ++i) table[table.size() - N + i] = last[i];
  return table;
}
// AVX-512 whole, Zen 5, where stores and the second cache are slower beside twice the multiply-adds. Who wins below is not in
// question. Intel's have the same units, and no measurement here.
constexpr Table kWhole64 = ending(kHalves64, {{24, 89, 78}, {32, 90, 82}, {48, 80, 86}, {64, 78, 88}, {96, 69, 89}});
constexpr Table kWhole32 = ending(kHalves32, {{48, 80, 87}, {64, 78, 89}, {96, 71, 93}});

// Networks with tanh on 64 samples, float64 on AVX-512; float32 crosses at the same width.
constexpr Table kOnSamples = {{{1, 5.6, 0.6},
                               {2, 12, 2.4},
                               {4, 24, 9},
                               {8, 38, 29},
                               {12, 48, 31},
                               {16, 53, 51},
                               {24, 64, 60},
                               {32, 65, 65},
                               {48, 71, 73},
                               {64, 71, 77},
                               {96, 72, 81}}};

const Table& table_of(Vectors vectors) {
  if (vectors.bytes < 64) return kNarrow;
  const bool f64 = vectors.bytes == 8 * vectors.lanes;
  if (vectors.whole) return f64 ? kWhole64 : kWhole32;
  return f64 ? kHalves64 : kHalves32;
}

// The side of a square network whose products are on average as large as those of this chain.
double typical_extent(const Chain& chain) {
  const double layers = static_cast<double>(std::max<std::int64_t>(1, chain.depth - 1));
  const double work = std::min(input_side_work(chain), output_side_work(chain)) / (3 * layers);
  return chain.depth > 1 ? std::cbrt(work) : std::sqrt(static_cast<double>(chain.widths[0] * chain.widths[1]));
}

// What part of the row layout's arithmetic is on elements of the layers, not on what fills their rows to whole vectors.
double filled(const Chain& chain, bool flipped, std::int64_t lanes) {
  std::int64_t elements = 0, padded = 0;
  for (std::int64_t l = 0; l < chain.depth; ++l) {
    const std::int64_t rows = chain.widths[flipped ? l : l + 1], cols = chain.widths[flipped ? l + 1 : l];
    elements += rows * cols;
    padded += rows * ((cols + lanes - 1) / lanes * lanes);
  }
  return static_cast<double>(elements) / static_cast<double>(padded);
}
double filled(double extent, std::int64_t lanes) {
  const auto width = static_cast<std::int64_t>(extent);
  const std::int64_t widths[] = {width, width};
  return filled(Chain{1, widths}, false, lanes);
}

// What the table has for networks of that extent, whose layers fill their rows so far.
Rates rates_of(const Table& table, double extent, double fill, std::int64_t batch, std::int64_t lanes) {
  const auto* const above =
      std::find_if(table.begin(), table.end(), [=](const Measured& m) { return m.extent >= extent; });
  const Measured& high = above == table.end() ? table.back() : *above;
  const Measured& low = above == table.begin() || above == table.end() ? high : above[-1];
  const double x = &low == &high ? 0 : std::log(extent / low.extent) / std::log(high.extent / low.extent);
  const auto between = [x](double a, double b) { return 0.01 * (a + x * (b - a)); };
  const std::int64_t groups = (batch + lanes - 1) / lanes;
  const double taken = static_cast<double>(batch) / static_cast<double>(groups * lanes);
  return {taken * between(low.interleaved, high.interleaved),
          fill * between(low.rows / filled(low.extent, lanes), high.rows / filled(high.extent, lanes))};
}

Layout named(const std::string& name, const Rates& rates) {
  if (name == "interleaved") return Layout::interleaved;
  if (name == "rows") return Layout::rows;
  if (name != "auto") throw std::invalid_argument("layout: expected auto, interleaved or rows, got " + name);
  return rates.interleaved >= rates.rows ? Layout::interleaved : Layout::rows;
}

}  // namespace

Rates expected_rates(const Chain& chain, std::int64_t batch, Vectors vectors) {
  return rates_of(table_of(vectors), typical_extent(chain), filled(chain, carry_input_side(chain), vectors.lanes),
                  batch, vectors.lanes);
}

Layout choose_layout(const std::string& name, const Chain& chain, std::int64_t batch, Vectors vectors) {
  return named(name, expected_rates(chain, batch, vectors));
}

Layout choose_layout_on_samples(const std::string& name, const Chain& chain, std::int64_t batch, Vectors vectors) {
  double weights = 0;
  for (std::int64_t l = 0; l < chain.depth; ++l)
    weights += static_cast<double>(chain.widths[l]) * static_cast<double>(chain.widths[l + 1]);
  const double extent = std::sqrt(weights / static_cast<double>(chain.depth));
  return named(name, rates_of(kOnSamples, extent, filled(chain, true, vectors.lanes), batch, vectors.lanes));
}

}  // namespace pydln::cpu
