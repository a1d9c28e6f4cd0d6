// ops::BalancedMode for one instruction set; CMake compiles this source as it does body.cpp. Every number is worked out by
// itself, in the same operations in whichever lane: neighbours cannot change its bits.
#include "ops/balanced_mode.hpp"

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/elementary.hpp"

namespace pydln::PYDLN_ISA {
namespace {

using namespace elementary;
using ops::Branch;
using ops::kRow;

constexpr std::int64_t kLanes = lanes_of<double>;
constexpr std::int64_t kTile = 512;  // points at a time: two arrays of them in the first cache
constexpr unsigned kShift = 52U - ops::kCellBits;
constexpr double kLargest = 0x1.fffffffffffffp1023;

// As Doubles, but of any address.
typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));
PYDLN_INLINE Doubles load(const double* p) { return *reinterpret_cast<const Loose*>(p); }
PYDLN_INLINE void store(double* p, Doubles x) { *reinterpret_cast<Loose*>(p) = x; }

// a + b as a number and what rounding took from it (Knuth), for scalars and vectors alike.
template <class V>
PYDLN_INLINE void add(V a, V b, V& high, V& low) {
  high = a + b;
  const V part = high - a;
  low = (a - (high - part)) + (b - part);
}
// T = high + low at a time after the start, at most `last`.
template <class V>
PYDLN_INLINE void advance(V time, V rate, V start_high, V start_low, V last, V& high, V& low) {
  const V more = time * rate, none = {}, largest = none + kLargest;
  add(start_high, V(more < largest ? more : largest), high, low);
  low = high < last ? low + start_low : none;
  high = high < last ? high : last;
}

// One row of the table in every lane.
struct Rows {
  Doubles of[kRow];
};
PYDLN_INLINE Rows fetch(const double* table, SignedBits row) {
  Rows c;
#pragma GCC unroll 4
  for (std::int64_t block = 0; block < kRow; block += kLanes) {
    Doubles* square = c.of + block;
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < kLanes; ++i)
      square[i] = *reinterpret_cast<const Doubles*>(table + row[i] * kRow + block);
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < kLanes; i += 2) transpose_pieces<double>(square + i);
    exchange_pieces<double>(square);
  }
  return c;
}

PYDLN_INLINE Bits upper(SignedBits cell) { return reinterpret_cast<const Bits&>(cell) << kShift; }
PYDLN_INLINE Doubles centre(SignedBits cell) {
  constexpr std::uint64_t kHalfCell = std::uint64_t{1} << (kShift - 1);
  return as_doubles(upper(cell) | kHalfCell);
}
constexpr std::uint64_t kExponent = 0x7FF0000000000000, kLargestPower = 0x7FE0000000000000;

struct State {
  Doubles v, gap;
};
// v = u/s and 1 - v at T = high + low.
PYDLN_INLINE State look_up(const ops::BalancedMode& op, Doubles high, Doubles low) {
  const SignedBits late = high >= 0.0;
  const auto side = [=](double early, double then) { return late ? splat(then) : splat(early); };
  const Doubles direction = side(op.early.direction, op.late.direction);
  const Doubles origin = side(op.early.origin, op.late.origin);
  const SignedBits none = {};
  const SignedBits offset = late ? none + (op.late.begin - op.late.first) : none + (op.early.begin - op.early.first);

  const Doubles along = high * direction, y = origin + along;
  // Exact for |T| >= origin; else no more is lost than the last digit of y.
  const Doubles rounded = origin - (y - along);
  const Bits bits = as_bits(y);
  const Bits cell = bits >> kShift;
  SignedBits row = reinterpret_cast<const SignedBits&>(cell) + offset;
  row = row < op.rows - 1 ? row : none + (op.rows - 1);  // nothing may lead out of the table
  row = row > 0 ? row : none;
  const Doubles scale = as_doubles(kLargestPower - (bits & kExponent));  // 2^-e
  const Doubles x = ((y - centre(reinterpret_cast<const SignedBits&>(cell))) + fma(low, direction, rounded)) * scale;

  const Rows c = fetch(op.table, row);
  Doubles power = c.of[kRow - 1];
#pragma GCC unroll 8
  for (std::int64_t k = kRow - 2; k > 0; --k) power = fma(power, x, c.of[k]);
  const Doubles e = c.of[0] * exp(power * x), rest = 1.0 - e;
  const SignedBits swap = op.late_is_gap ? late : none;
  return {swap ? rest : e, swap ? e : rest};
}

// Where a mode starts: the side of T = 0, and |E|.
struct Start {
  bool late;
  double size;
};
// T at the starts as high + low: the cell by bisection, and Newton's method in it.
PYDLN_INLINE void when(const ops::BalancedMode& op, const Start* starts, Doubles& high, Doubles& low) {
  // All lanes take a step of their bisections before the next one: none waits for its memory alone.
  const double* bounds[kLanes];
  std::int64_t cells[kLanes], found[kLanes] = {}, most = 1;
  for (std::int64_t i = 0; i < kLanes; ++i) {
    const Branch& b = starts[i].late ? op.late : op.early;
    bounds[i] = b.bounds;
    cells[i] = b.cells;
    while (most < b.cells) most *= 2;
  }
  for (std::int64_t step = most / 2; step > 0; step /= 2)
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t next = found[i] + step < cells[i] ? found[i] + step : found[i];
      found[i] = bounds[i][next] >= starts[i].size ? next : found[i];
    }
  Doubles size{}, direction{}, origin{};
  SignedBits row{}, first{};
  for (std::int64_t i = 0; i < kLanes; ++i) {
    const Branch& b = starts[i].late ? op.late : op.early;
    row[i] = b.begin + found[i];
    first[i] = b.first - b.begin;
    size[i] = starts[i].size;
    direction[i] = b.direction;
    origin[i] = b.origin;
  }
  const Rows c = fetch(op.table, row);
  const Doubles ratio = size / c.of[0];
  const Doubles goal = log(ratio < 0.0 ? -ratio : ratio);
  // Over a cell the logarithm bends by less than a hundredth of its rise: each step squares that.
  Doubles x = goal / c.of[1];
  for (int step = 0; step < 3; ++step) {
    Doubles power = c.of[kRow - 1], slope = Doubles{};
#pragma GCC unroll 8
    for (std::int64_t k = kRow - 2; k > 0; --k) {
      slope = fma(slope, x, power);
      power = fma(power, x, c.of[k]);
    }
    x -= fma(power, x, -goal) / fma(slope, x, power);
  }
  const SignedBits cell = row + first;
  const Doubles length = as_doubles(upper(cell) & kExponent);  // 2^e
  add(Doubles(direction * (centre(cell) - origin)), Doubles(direction * (x * length)), high, low);
}

// The points of a tile, mode after mode.
struct Tile {
  std::int64_t mode, modes;  // of the operation
  std::int64_t time, times;
};

class Work {
 public:
  explicit Work(const ops::BalancedMode& op) : op_(op) {}

  void run(const Tile& tile) {
    start(tile);
    spread(tile);
    const std::int64_t points = tile.modes * tile.times;
    for (std::int64_t i = 0; i < points; i += kLanes) {
      const State found = look_up(op_, load(first_ + i), load(second_ + i));
      store(first_ + i, found.v);
      store(second_ + i, found.gap);
    }
    write(tile);
  }

 private:
  std::int64_t entry(std::int64_t mode) const { return op_.which ? op_.which[mode] : mode; }

  // T at the start of every mode.
  void start(const Tile& tile) {
    for (std::int64_t j = 0; j < tile.modes; j += kLanes) {
      Start starts[kLanes];
      for (std::int64_t i = 0; i < kLanes; ++i) {
        const std::int64_t k = entry(tile.mode + (j + i < tile.modes ? j + i : tile.modes - 1));
        const double u0 = op_.u0[k], s = op_.s[k], v = u0 / s;
        const bool late = (v < op_.middle) != (op_.middle < 1);
        const double e = late && op_.late_is_gap ? (s - u0) / s : v;
        starts[i] = {late, e < 0 ? -e : e};
      }
      Doubles high, low;
      when(op_, starts, high, low);
      store(start_high_ + j, high);
      store(start_low_ + j, low);
    }
  }

  // T at every point.
  void spread(const Tile& tile) {
    for (std::int64_t j = 0; j < tile.modes; ++j) {
      const std::int64_t k = entry(tile.mode + j);
      const double* t = op_.t + k * op_.t_stride + tile.time;
      const double rate = op_.rate[k], begin = start_high_[j], rest = start_low_[j];
      double *high = first_ + j * tile.times, *low = second_ + j * tile.times;
      std::int64_t i = 0;
      for (; i + kLanes <= tile.times; i += kLanes) {
        Doubles upper, lower;
        advance(load(t + i), splat(rate), splat(begin), splat(rest), splat(op_.last), upper, lower);
        store(high + i, upper);
        store(low + i, lower);
      }
      for (; i < tile.times; ++i) advance(t[i], rate, begin, rest, op_.last, high[i], low[i]);
    }
  }

  // u = s v and s - u; at time 0 the start itself, unrounded.
  void write(const Tile& tile) {
    for (std::int64_t j = 0; j < tile.modes; ++j) {
      const std::int64_t k = entry(tile.mode + j);
      const double* t = op_.t + k * op_.t_stride + tile.time;
      const double s = op_.s[k], u0 = op_.u0[k];
      put(t, first_ + j * tile.times, s, u0, tile.times, op_.u + k * op_.times + tile.time);
      if (op_.gap) put(t, second_ + j * tile.times, s, s - u0, tile.times, op_.gap + k * op_.times + tile.time);
    }
  }
  static PYDLN_INLINE void put(const double* t, const double* part, double s, double start, std::int64_t times,
                               double* out) {
    std::int64_t i = 0;
    for (; i + kLanes <= times; i += kLanes) store(out + i, load(t + i) > 0.0 ? load(part + i) * s : splat(start));
    for (; i < times; ++i) out[i] = t[i] > 0.0 ? part[i] * s : start;
  }

  const ops::BalancedMode& op_;
  // High and low parts of T, then v and 1 - v. Beyond the points the last vector meets numbers of an earlier tile, or zeros.
  alignas(64) double first_[kTile + kLanes] = {}, second_[kTile + kLanes] = {};
  alignas(64) double start_high_[kTile + kLanes] = {}, start_low_[kTile + kLanes] = {};
};

}  // namespace

void balanced_mode(const ops::BalancedMode& op, Control& control) {
  const std::int64_t stretch = op.times < kTile ? op.times : kTile;     // times of a tile
  const std::int64_t stretches = (op.times + stretch - 1) / stretch;    // tiles of a mode
  const std::int64_t together = stretch < kTile ? kTile / stretch : 1;  // modes of a tile
  const std::int64_t tiles = (op.modes + together - 1) / together * stretches;
  Work work(op);
  for (std::int64_t i = take_member(control); i < tiles && !cancelled(control); i = take_member(control)) {
    Tile tile{i / stretches * together, together, i % stretches * stretch, stretch};
    if (tile.mode + tile.modes > op.modes) tile.modes = op.modes - tile.mode;
    if (tile.time + tile.times > op.times) tile.times = op.times - tile.time;
    work.run(tile);
  }
}

}  // namespace pydln::PYDLN_ISA
